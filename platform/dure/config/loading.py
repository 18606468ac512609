"""From YAML files and overrides to checked sections, and back to YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dure.config import library
from dure.config.data import ReadingConfig
from dure.config.deepspeed import deepspeed_settings
from dure.config.given import Overrides, overrides_of
from dure.config.problems import user_error
from dure.config.schema import Experiment, Profile
from dure.config.spaces import SearchSpace
from dure.config.tree import (
    COMMAND_LINE,
    Dumper,
    Places,
    Tree,
    places,
    plain,
    read_extended,
    read_yaml,
    with_overrides,
)
from dure.errors import UserError, nearest, shown_path

Model = TypeVar("Model", bound=BaseModel)
_COLUMNS = "data.columns"


def load_experiment(name_or_path: str | Path, overrides: Overrides = ()) -> Experiment:
    """Load an experiment by name or file, with settings such as ``a.b=value`` on top.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("experiment", name_or_path)
    return _loaded(Experiment, "experiment", path, overrides_of(overrides))


def _loaded(model: type[Model], kind: library.Kind, path: Path, overrides: Iterable[str] = ()) -> Model:
    tree = with_overrides(read_extended(path, kind, model.model_fields), overrides)
    return checked_tree(model, tree, shown_path(path))


def load_record(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """Load the resolved experiment that a run's folder keeps, and nothing that it may point to.

    Raises:
        UserError: Something in it is wrong, or it extends another file: what dure writes does not.
    """
    tree = read_yaml(path)
    if "extends" in tree:
        raise UserError(
            "'extends' stands in the record of a run, which holds every key itself",
            where=tree["extends"].place,
            expected="a resolved experiment, as a run writes it",
            hint="take the folder from whoever ran it once more",
        )
    return checked_tree(Experiment, with_overrides(tree, overrides), shown_path(path))


def load_space(name_or_path: str | Path) -> SearchSpace:
    """Load a search space by name or file.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    return _loaded(SearchSpace, "space", library.find("space", name_or_path))


def load_profile(name_or_path: str | Path) -> Profile:
    """Load a machine profile by name or file.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("profile", name_or_path)
    profile = _loaded(Profile, "profile", path)
    if profile.deepspeed is None:
        return profile
    try:
        deepspeed_settings(profile.deepspeed)
    except UserError as error:
        raise error.at(error.where or f"{shown_path(path)}: deepspeed") from None
    if not library.is_file_name("deepspeed", profile.deepspeed):
        return profile
    # A name is known to workers on any machine; a file they would look for in a folder of their own.
    return profile.with_({"deepspeed": str(library.find("deepspeed", profile.deepspeed).resolve())})


def checked(model: type[Model], values: Mapping[str, Any], places: Places, source: str) -> Model:
    """Build a typed section from plain values.

    ``places`` says where each key was set, as far as known; ``source`` is the place of everything else.

    Raises:
        UserError: Unknown keys, wrong types or impossible values: every one with its place and remedy.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise user_error(error, model, values, places, source) from None


def checked_tree(model: type[Model], tree: Tree, source: str) -> Model:
    """Build a typed section from a tree that was read, as :func:`checked` does."""
    return checked(model, plain(tree), places(tree), source)


def reading_of(overrides: Iterable[str]) -> ReadingConfig:
    """Return how tables are read, from ``data.key=value`` texts over the defaults.

    Raises:
        UserError: A text is no such setting, or its value is impossible.
    """
    given = list(overrides)
    check_reading(given)
    section = with_overrides({}, given).get("data")
    tree = section.value if section is not None else {}
    return checked_tree(ReadingConfig, tree, f"{COMMAND_LINE} (data)")


def check_reading(overrides: Sequence[str], *, with_columns: bool = False) -> None:
    """Check that overrides set nothing but how a table is read.

    With ``with_columns``, ``data.columns.ROLE`` may be set too.

    Raises:
        UserError: One sets something else.
    """
    known = [f"data.{name}" for name in ReadingConfig.model_fields]
    if with_columns:
        known.append(f"{_COLUMNS}.ROLE")
    for override in overrides:
        key = override.partition("=")[0]
        if key in known or (with_columns and (key == _COLUMNS or key.startswith(f"{_COLUMNS}."))):
            continue
        of_role = [f"{_COLUMNS}.{key.rpartition('.')[2]}"] if with_columns and key.count(".") == 2 else []
        like = nearest(key, [*known, *of_role])
        raise UserError(
            f"'{key}' does not say how a table is read",
            where=COMMAND_LINE,
            expected=f"one of {', '.join(known)}",
            hint=f"{like}=…" if like else None,
        )


def dump_yaml(section: BaseModel) -> str:
    """Write a section as YAML that loads back into an equal one; keys in the schema's order."""
    return yaml.dump(
        section.model_dump(mode="json"), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=110
    )
