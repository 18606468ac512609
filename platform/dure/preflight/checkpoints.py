"""Whether what a run left behind can be loaded: its records, checkpoints and weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dure.errors import UserError, nearest
from dure.family import Family
from dure.family.saved_model import read_model
from dure.files import json_lines, parse_json
from dure.modeling.folders import LOST
from dure.modeling.weights import check_torch_file
from dure.preflight.checks import Checklist, Note
from dure.preflight.model import ModelFacts, Shape
from dure.preflight.weights import check_same_model, safetensors_shapes, torch_shapes
from dure.runs.checkpoints import STATE_FILE
from dure.runs.folder import RunFolder, folder_at
from dure.runs.manifest import check_whole, has_manifest

_STEP_FOLDER = re.compile(r"checkpoint-(\d+)")
_TORCH_SUFFIXES = (".pt", ".pth", ".bin")
_SHARED_OUT = "global_step*"
"""Folders in which DeepSpeed keeps the parts of a checkpoint, optimiser included."""


@dataclass(frozen=True)
class Wanted:
    """What weights are compared with."""

    family: Family | None
    facts: ModelFacts | None

    @property
    def of(self) -> str:
        """The model in words."""
        return "the experiment's" if self.family is None else f"that of {self.family.experiment.name}"


def check_checkpoints(checklist: Checklist, path: Path, wanted: Wanted) -> None:
    """Check a run's folder with all that is in it, a checkpoint's or a final model's folder, or a file of weights."""
    if path.is_dir() and RunFolder(path).experiment.is_file():
        _check_run(checklist, path, wanted)
    else:
        checklist.run("checkpoints", path.name, _check_one, path=path, wanted=wanted)


def _check_run(checklist: Checklist, path: Path, wanted: Wanted) -> None:
    folder = folder_at(path)
    checklist.run("checkpoints", "result.json", _result, folder=folder)
    checklist.run("checkpoints", "metrics.jsonl", _metrics, folder=folder)
    parts = sorted(
        (
            part
            for place in {folder.path, folder.checkpoints}
            if place.is_dir()
            for part in place.iterdir()
            if _STEP_FOLDER.fullmatch(part.name) or part.suffix in _TORCH_SUFFIXES
        ),
        key=lambda part: [int(word) if word.isdecimal() else word for word in re.split(r"(\d+)", part.name)],
    )
    if folder.final_model.exists():
        parts.append(folder.final_model)
    if not parts:
        checklist.run("checkpoints", path.name, _nothing, path=path)
    for part in parts:
        checklist.run("checkpoints", part.name, _check_one, path=part, wanted=wanted)


def _nothing(note: Note, path: Path) -> None:
    raise UserError(
        "the run left no checkpoint and no final model", where=str(path), hint="dure train … --resume"
    )


def _result(note: Note, folder: RunFolder) -> None:
    result = folder.read_result()
    if result is None:
        note.found = "none: the run has not ended"
        note.remedy = "--resume continues it"
    else:
        note.found = f"{result.name} {result.state}"
        if result.error:
            note.remedy = result.error


def _metrics(note: Note, folder: RunFolder) -> None:
    note.found = f"{sum(1 for _ in json_lines(folder.metrics)):,} records"


def _check_one(note: Note, path: Path, wanted: Wanted) -> None:
    """Check one checkpoint, final model or file of weights."""
    if not path.exists():
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        like = nearest(path.name, siblings)
        raise UserError(
            "there is nothing there",
            where=str(path),
            expected="a run's folder, a checkpoint-<step> folder, final_model, or a file of weights",
            hint=f"is {path.parent / like} meant?" if like else None,
        )
    if path.is_file():
        _check_file(note, path, wanted)
    elif step := _STEP_FOLDER.fullmatch(path.name):
        _check_step(note, path, int(step[1]), wanted)
        check_whole(path, hint=f"--resume sets it aside and takes the checkpoint before; {LOST}")
    elif (path / "config.json").is_file():
        _check_final(note, path, wanted)
        check_whole(path, hint=LOST)
    else:
        raise UserError(
            "the folder holds neither a run nor a model",
            where=str(path),
            expected="a run's folder (with experiment.yaml), a checkpoint-<step> folder, or a saved model "
            "(with config.json)",
        )


def _check_file(note: Note, path: Path, wanted: Wanted) -> None:
    if path.suffix == ".safetensors":
        shapes, about = safetensors_shapes(path), dict[str, Any]()
    elif path.suffix in _TORCH_SUFFIXES:
        shapes, about = torch_shapes(path)
    else:
        raise UserError(
            f"files with the suffix '{path.suffix}' hold no weights",
            where=str(path),
            expected=f"one of .safetensors, {', '.join(_TORCH_SUFFIXES)}",
        )
    facts = ", ".join(f"{name} {value}" for name, value in list(about.items())[:3])
    note.found = "; ".join(filter(None, (_counted(shapes), facts)))
    if wanted.facts is None or not wanted.facts.trained:
        note.found += "; not compared with a model"
        note.remedy = "name an experiment whose model is known here to have them compared"
        return
    # A whole state of a model with adapters is no less its own.
    whole = len(shapes) > len(wanted.facts.trained)
    check_same_model(
        shapes,
        wanted.facts.state if whole else wanted.facts.trained,
        wanted.facts.tied,
        path,
        wanted.of,
    )


def _check_step(note: Note, path: Path, step: int, wanted: Wanted) -> None:
    state = path / STATE_FILE
    if not state.is_file():
        raise UserError(
            f"it has no {STATE_FILE}, which is written last: it was not finished",
            where=str(path),
            hint="remove the folder; --resume takes the checkpoint before",
        )
    try:
        recorded = parse_json(state.read_bytes())["global_step"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"it is no state of a trainer ({error})",
            where=str(state),
            hint="remove the folder; --resume takes the checkpoint before",
        ) from None
    if recorded != step:
        raise UserError(f"it is of step {recorded}", where=str(state), expected=f"step {step}")
    shapes = _folder_shapes(path)
    is_shared_out = any(path.glob(_SHARED_OUT))
    if not shapes and not is_shared_out:
        raise UserError("it holds no weights", where=str(path), expected="a .safetensors file")
    if not is_shared_out and not (path / "optimizer.pt").is_file():
        raise UserError(
            "it holds no optimizer.pt, so that nothing can be continued from it",
            where=str(path),
            hint="the checkpoint before, or only its weights",
        )
    files = [file for file in path.rglob("*") if file.suffix in _TORCH_SUFFIXES]
    for file in files:
        check_torch_file(file)
    note.found = f"step {step}, {_counted(shapes)}, {len(files)} files of state{_compared(path)}"
    facts = wanted.facts
    if facts is None or not facts.state:
        return
    if (path / "adapter_config.json").is_file():
        trained = {_as_adapter(name): shape for name, shape in facts.trained.items()}
        check_same_model(shapes, trained, {}, path, wanted.of)
    elif shapes:
        check_same_model(shapes, facts.state, facts.tied, path, wanted.of)


def _compared(path: Path) -> str:
    return "" if has_manifest(path) else ", no manifest to compare them with"


def _as_adapter(name: str) -> str:
    """Return the name of a trained parameter as peft saves it: without that of the adapter."""
    return name.replace(".modules_to_save.default.", ".").replace(".default.", ".").removesuffix(".default")


def _check_final(note: Note, path: Path, wanted: Wanted) -> None:
    shapes = _folder_shapes(path)
    if not shapes:
        raise UserError("it holds no weights", where=str(path), expected="a .safetensors file")
    note.found = _counted(shapes) + _compared(path)
    if wanted.family is None:
        note.found += "; not loaded, since its family is not known"
        note.remedy = "name the experiment that trained it"
        return
    model, _ = read_model(wanted.family, path)
    note.found += f"; loads as {type(model).__name__}"
    facts = wanted.facts
    if facts is not None and facts.state and wanted.family.experiment.lora is None:
        check_same_model(shapes, facts.state, facts.tied, path, wanted.of)


def _folder_shapes(path: Path) -> dict[str, Shape]:
    """Return name → shape of all tensors in the safetensors files of a folder."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            parts = set(parse_json(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"it is no index of weights ({error})", where=str(index)) from None
        for part in sorted(parts):
            if not (path / part).is_file():
                raise UserError(f"the part '{part}' of the weights is missing", where=str(path))
    shapes: dict[str, Shape] = {}
    for file in sorted(path.glob("*.safetensors")):
        shapes |= safetensors_shapes(file)
    return shapes


def _counted(shapes: Mapping[str, Shape]) -> str:
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return f"{len(shapes):,} tensors of {numbers:,} numbers"
