"""Finding experiments, studies, search spaces, profiles and DeepSpeed settings by name, beside the user or in the installation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import dure
from dure.errors import UserError, nearest, shell_word

Kind = Literal["experiment", "study", "space", "profile", "deepspeed"]

_FOLDERS: dict[Kind, tuple[str, str]] = {
    "experiment": ("search_spaces", "experiments"),
    "study": ("search_spaces", "studies"),
    "space": ("search_spaces", "spaces"),
    "profile": ("cluster", "profiles"),
    "deepspeed": ("cluster", "deepspeed"),
}


def folders(kind: Kind) -> list[Path]:
    """Return the folders that hold files of a kind: the working folder's first, then the installation's."""
    package, sub = _FOLDERS[kind]
    roots = (Path.cwd() / package, installed(package))
    found = dict.fromkeys((root / sub).resolve() for root in roots if root is not None)
    return [folder for folder in found if folder.is_dir()]


def installed(wing: str) -> Path | None:
    """Return the folder of a wing that came with dure: inside the engine in a wheel, beside it in the repository.

    A job of a cluster gets the engine by itself; the rest lies in its working folder then.
    """
    engine = Path(str(dure.__file__)).parent
    places = (engine / wing, engine.parents[1] / wing, Path.cwd() / wing)
    return next((place for place in places if place.is_dir()), None)


def available(kind: Kind) -> dict[str, Path]:
    """Return every name of a kind with its file; a file of the working folder hides an installed namesake.

    Names that begin with ``_`` are left out: they are parents, to be extended and not to be run.
    """
    files: dict[str, Path] = {}
    for folder in folders(kind):
        for file in sorted(folder.glob(f"*{_suffix(kind)}")):
            if not file.name.startswith("_"):
                files.setdefault(file.stem, file)
    return files


def in_place_of(program: str) -> str | None:
    """Return the command that takes the place of a program of an older system; None when it is none."""
    import yaml

    wing = installed("search_spaces")
    known = {} if wing is None else yaml.safe_load((wing / "old_programs.yaml").read_text(encoding="utf-8"))
    command: str | None = known.get(Path(program).stem)
    return command


def find(kind: Kind, name: str | Path, beside: Path = Path()) -> Path:
    """Return the file of a name; a path (with a slash, or ending in .yaml or for DeepSpeed in .json) is taken from ``beside``.

    Raises:
        UserError: There is neither a file nor a name like it.
    """
    suffix = _suffix(kind)
    if not isinstance(name, str | Path):
        raise UserError(
            f"{type(name).__name__} is given in place of the name of {'an' if kind == 'experiment' else 'a'} {kind}",
            expected=f"a name, or the path of a {suffix} file",
        )
    name = str(name)
    if is_file_name(kind, name):
        path = beside / os.path.expanduser(name)  # noqa: PTH111 - which raises nothing without a home
        if os.path.isfile(path):  # noqa: PTH113 - of a name that the file system finds too long Path.is_file raises
            return path
        like = nearest(re.sub(r"^[0-9]+_", "", path.stem), list(available(kind)))
        hint = f"{like}, which needs no file" if like else None
        if kind == "experiment" and not path.suffix:
            hint = _as_model(kind, name)
        elif kind == "experiment" and like is None:
            hint = "dure list, which names those that need no file"
        raise UserError(f"there is no {kind} file '{name}'", hint=hint)
    files = available(kind)
    if name in files:
        return files[name]
    is_study = kind == "experiment" and name in available("study")
    like = f"`dure run {name}`, since that is a study" if is_study else nearest(name, list(files))
    raise UserError(
        f"there is no {kind} '{name}'",
        expected=f"one of: {', '.join(files) or 'none is installed'}; or the path of a {suffix} file",
        hint=like or _as_model(kind, name),
    )


def _as_model(kind: Kind, name: str) -> str | None:
    """Return how a model of the hub is named, which is often given in place of an experiment."""
    if kind != "experiment":
        return None
    return (
        f"a model is a setting of an experiment, as in transfer_bert {shell_word(f'model.checkpoint={name}')}"
    )


def is_file_name(kind: Kind, name: str) -> bool:
    """Return whether a text means a file and not a name."""
    return name.endswith((_suffix(kind), ".yml")) or "/" in name


def _suffix(kind: Kind) -> str:
    return ".json" if kind == "deepspeed" else ".yaml"
