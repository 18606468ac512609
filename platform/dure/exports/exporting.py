"""``dure export``: the model of a run in another place and format, compared with the original before it is kept."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dure.config.loading import dump_yaml
from dure.config.schema import Profile
from dure.data.collating import moved
from dure.errors import RunError, UserError, shell_word
from dure.events import Notify
from dure.exports.agreement import Agreement, Prediction, compare
from dure.exports.formats import Format, Trained, format_of
from dure.exports.model_card import model_card
from dure.family import Family
from dure.family.contract import ExportFormat
from dure.family.corpus import Corpus, load_corpus
from dure.family.exported import CARD, EXPORT_FILE, RUNS_ON, ExportRecord, is_export, read_as
from dure.family.predicting import predict_rows
from dure.family.run_weights import weights_at
from dure.files import make_folder, read_json, write_json, write_text, written_beside
from dure.runs.budget import bytes_in
from dure.runs.folder import RunFolder
from dure.runs.manifest import MANIFEST, write_manifest

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Asked:
    """How an export is made and judged."""

    format: ExportFormat = "transformers"
    """What it becomes."""
    quantization: str | None = None
    """How the format packs numbers; only ``ctranslate2`` does."""
    num_rows: int | None = None
    """Most validation rows that are compared; all when not given."""
    accept: float = 1.0
    """Least part of them that must agree."""
    licence: str = "unknown"
    """What the model card says of the licence, an SPDX name or a name of the model hub."""
    force: bool = False
    """Whether an export that dure wrote is replaced."""


def export_run(
    path: Path,
    target: Path,
    asked: Asked,
    *,
    overrides: tuple[str, ...] = (),
    profile: Profile,
    progress: Callable[[int, int], None],
    notify: Notify,
) -> ExportRecord:
    """Export the weights that a path means; what does not predict as the original does is not kept.

    ``overrides`` say where the run's tables are by now; ``progress`` gets rows predicted, and rows to predict in all.

    Raises:
        UserError: Something that was given is wrong, or the format cannot hold the model.
        RunError: The export predicts otherwise than the original.
    """
    weights = weights_at(path)
    if is_export(weights.run):
        raise UserError(
            "this is an export already",
            where=str(path),
            expected="a run, or a file of weights in one, to be exported in the other format",
        )
    family = weights.family(notify, overrides)
    made = _checked_format(family, asked)
    check_target(target, force=asked.force)
    target = target.resolve() if target.is_symlink() else target
    make_folder(target.absolute().parent, where=f"--to {target}")
    notify(f"exporting {weights.words}")
    model, tokenizer = weights.read(family, profile, notify, adapted=asked.format == "adapter")
    model.to(torch.device(profile.device))
    corpus = load_corpus(family, notify=notify, tokenizer=tokenizer)
    rows = _to_predict(family, corpus, asked.num_rows)
    trained = _with_example(family, model, tokenizer, rows)
    original, seconds = _predicted(trained, rows, progress, 0)
    with written_beside(target) as beside:
        beside.mkdir(parents=True)
        made.write(trained, beside, asked.quantization)
        if family.predicts == "text":
            model.generation_config.save_pretrained(beside)
        exported, copy_seconds = _predicted(_read_again(trained, asked, beside), rows, progress, len(rows))
        agreement = compare(original, exported, made.tolerance)
        differs = made.differs(model)
        _require(agreement, asked, differs)
        record = ExportRecord(
            format=asked.format,
            quantization=asked.quantization,
            source=weights.words,
            run=weights.run.resolve().name,
            agreement=agreement.as_dict(),
            accepted=asked.accept,
            rows_per_second=round(len(rows) / copy_seconds, 3),
            original_rows_per_second=round(len(rows) / seconds, 3),
            size_bytes=bytes_in(beside),
            dure_version=importlib.metadata.version("dure"),
        )
        write_text(beside / RunFolder(beside).experiment.name, dump_yaml(family.experiment))
        card = model_card(weights, family, record, agreement, asked.licence, differs, profile.device)
        write_text(beside / CARD, card)
        write_json(beside / EXPORT_FILE, record.model_dump(mode="json"))
        write_manifest(beside)
        check_target(target, force=asked.force)  # another command may have ended meanwhile
    return record


def _with_example(
    family: Family, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: datasets.Dataset
) -> Trained:
    """Return a model with what it reads of the first two rows."""
    batches = family.batches(tokenizer, model)
    batch = moved(batches.collate([rows[row] for row in (0, min(1, len(rows) - 1))]), model.device)
    inputs = batches.prompts(batch) if family.predicts == "text" else batches.inputs(batch)
    return Trained(family, model, tokenizer, inputs)


def _read_again(trained: Trained, asked: Asked, folder: Path) -> Trained:
    """Return what was written, on the device of the original where it can be: devices round differently."""
    copy, tokenizer = read_as(asked.format, trained.family, folder)
    if asked.format not in RUNS_ON:
        copy.to(trained.model.device)
    return replace(trained, model=copy, tokenizer=tokenizer)


def _predicted(
    trained: Trained, rows: datasets.Dataset, progress: Callable[[int, int], None], before: int
) -> tuple[list[Prediction], float]:
    """Return what a model makes of rows, and the seconds that it took, of two passes over them."""
    done = before

    def advance(number: int) -> None:
        nonlocal done
        done += number
        progress(done, 2 * len(rows))

    started = time.perf_counter()
    found = predict_rows(trained.family, trained.model, trained.tokenizer, rows, progress=advance)
    return list(found), time.perf_counter() - started


def _checked_format(family: Family, asked: Asked) -> Format:
    """Return the format when the family can be exported as it, and its packages are there."""
    if asked.format not in family.exports:
        raise UserError(
            f"{family.experiment.family} is not exported as {asked.format}",
            where="--format",
            expected=f"one of {', '.join(family.exports)}",
        )
    if asked.quantization is not None and asked.format != "ctranslate2":
        raise UserError(
            f"{asked.format} keeps numbers as they are",
            where="--quantization",
            expected="--format ctranslate2 beside it",
        )
    made = format_of(asked.format)
    made.require(asked.format, family.experiment)
    return made


def _to_predict(family: Family, corpus: Corpus, most: int | None) -> datasets.Dataset:
    """Return the validation rows to compare, training rows where there are none, as a table to predict has them."""
    rows = corpus.train if corpus.dev is None else corpus.dev
    if most is not None:
        rows = rows.select(range(min(most, len(rows))))
    known = family.encode({role.name: ["-"] for role in family.roles if role.is_input}, corpus.tokenizer)
    return rows.select_columns([name for name in rows.column_names if name in known])


def _require(agreement: Agreement, asked: Asked, differs: str) -> None:
    """Refuse an export that differs more than was accepted, and show where."""
    if agreement.share >= asked.accept:
        return
    lines = [
        f"  row {each.row}: {dict(each.original)} became {dict(each.export)}"
        for each in agreement.differences
    ]
    raise RunError(
        "\n".join(
            (
                f"the export is not kept: {agreement.sentence}, which is less than --accept {asked.accept:g}",
                *lines,
                *([f"  {differs}"] if differs else []),
                f"  try: --accept {int(agreement.share * 1000) / 1000:g} if that will do",
            )
        )
    )


def check_target(folder: Path, *, force: bool) -> None:
    """Check that an export may be written to a folder: nothing that dure did not write is replaced.

    Raises:
        UserError: There is something else, or an export and it was not said to be replaced.
    """
    where = f"--to {folder}"
    if folder.is_dir() and (Path.cwd().is_relative_to(folder.resolve()) or folder.is_mount()):
        raise UserError(
            "the working folder, one around it, or a mounted disk cannot be replaced",
            where=where,
            expected="a folder that is not there yet, or an earlier export",
            hint=f"--to {shell_word(folder / 'model')}",
        )
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not is_export(folder):
        raise UserError(
            "there is something that dure did not export",
            where=where,
            expected="a new or empty folder, or an earlier export",
        )
    known = {*_known_files(folder / MANIFEST), MANIFEST}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if foreign := sorted(files - known):
        raise UserError(
            f"beside an export there is '{foreign[0]}', which dure did not write",
            where=where,
            hint="another folder",
        )
    if not force:
        raise UserError("there is an export", where=where, hint="--force replaces it")


def _known_files(manifest: Path) -> set[str]:
    """Return the files that dure wrote by the manifest beside them."""
    found = read_json(manifest, what="manifest of an export", hint="remove the folder, or take another one")
    files = found.get("files")
    return set(files) if isinstance(files, dict) else set()
