"""The union of all kinds of study, and how one is read: by name, from a YAML file, from a study's folder."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from dure.config import library
from dure.config.loading import checked_tree
from dure.config.problems import shown
from dure.config.schema import Experiment
from dure.config.tree import Tree, read_extended, read_yaml
from dure.errors import UserError, nearest, shell_word, shown_path
from dure.runs.folder import STUDY_FILE
from dure.studies.batch.plan import BatchStudy
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.plan import StudyPlan
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.results import StudyResults
from dure.studies.sweep.plan import SweepStudy
from dure.studies.unified.plan import UnifiedStudy

Plan = TypeVar("Plan", bound=StudyPlan)

_OPTIONS = "# run with: "

Study = Annotated[
    BatchStudy | SweepStudy | ProgressiveStudy | CrossvalStudy | UnifiedStudy, Field(discriminator="kind")
]
"""Every kind of study; a new one is a folder beside these and a member of this union."""


def study_kinds() -> dict[str, type[StudyPlan]]:
    """Return the members of the union :data:`Study` by their ``kind``."""
    union, _ = typing.get_args(Study)
    return {member.model_fields["kind"].default: member for member in typing.get_args(union)}


def _keys() -> set[str]:
    """Return what the file of a study may hold, of whatever kind it is."""
    return {key for kind in study_kinds().values() for key in kind.model_fields}


def load_study(name_or_path: str) -> StudyPlan:
    """Load a study of any kind by name or file; its ``kind`` decides what it must hold.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("study", name_or_path)
    source = shown_path(path)
    tree = read_extended(path, "study", _keys())
    try:
        study = checked_tree(_kind_in(tree, source), tree, source)
    except UserError as error:
        if error.where is not None:
            raise
        space = tree.get("space")  # there is none of that name
        raise error.at(source if space is None else space.place) from None
    named = tree.get("experiments", tree.get("experiment"))
    for each in study.sources:
        try:
            library.find("experiment", each)
        except UserError as error:
            raise error.at(source if named is None else named.place) from None
    return study


def load_study_of(plan: type[Plan], name_or_path: str) -> Plan:
    """Load a study that must be of one kind.

    Raises:
        UserError: Nothing of that name, something in it is wrong, or it is of another kind.
    """
    study = load_study(name_or_path)
    if not isinstance(study, plan):
        raise UserError(
            f"this is a {study.words}",
            where=name_or_path,
            expected=f"a study of kind {plan.model_fields['kind'].default}",
            hint=f"dure run {shell_word(name_or_path)}",
        )
    return study


def is_study(name_or_path: str) -> bool:
    """Return whether a name or file is that of a study, and not of an experiment.

    Raises:
        UserError: There is neither, or the file is no YAML.
    """
    if not library.is_file_name("study", name_or_path):
        studies, experiments = library.available("study"), library.available("experiment")
        if name_or_path not in studies and name_or_path not in experiments:
            raise UserError(
                f"there is no study and no experiment '{name_or_path}'",
                expected=f"one of: {', '.join([*studies, *experiments])}; or the path of a .yaml file",
                hint=nearest(name_or_path, [*studies, *experiments]),
            )
        return name_or_path in studies
    file, keys = library.find("experiment", name_or_path), _keys() | set(Experiment.model_fields)
    # A study whose file forgot its kind is told so, and not what an experiment lacks.
    return not {"kind", "experiments"}.isdisjoint(read_extended(file, "experiment", keys))


def stored_study(folder: Path, plan: type[Plan]) -> Plan:
    """Return the study that a folder was started with, from its ``study.yaml``.

    Raises:
        UserError: The folder holds none of this kind, or its file is broken.
    """
    file = folder / STUDY_FILE
    tree = read_yaml(file) if file.is_file() else {}
    if "kind" not in tree or tree["kind"].value != plan.model_fields["kind"].default:
        raise UserError(
            f"this is no folder of a {plan.words}",
            where=str(folder),
            expected=f"a folder with its {STUDY_FILE}",
        )
    return checked_tree(plan, tree, str(file))


def with_options_line(study: str, words: Sequence[str]) -> str:
    """Return the YAML of a study beneath the common options that it runs with, so that it can be repeated."""
    return f"{_OPTIONS}{' '.join(words)}\n{study}" if words else study


def options_line(folder: Path) -> str:
    """Return the common options that the study of a folder was run with, as a command has them."""
    file = folder / STUDY_FILE
    first = file.read_text(encoding="utf-8").partition("\n")[0] if file.is_file() else ""
    return first.removeprefix(_OPTIONS) if first.startswith(_OPTIONS) else ""


def read_results(folder: Path) -> StudyResults:
    """Return the results of the study of a folder, so far if it still runs.

    Raises:
        UserError: The folder holds no study or no results, or its files are broken.
    """
    kind: Any = stored_kind(folder).kind_of()
    file = folder / kind.results_file
    if not file.is_file():
        raise UserError(
            "the study has no results yet, or they are not there any more",
            where=str(folder),
            expected=f"its {file.name}",
            hint="the command that began it finishes it with --resume",
        )
    results: StudyResults = kind.results.read(file)
    return results


def stored_kind(folder: Path) -> type[StudyPlan]:
    """Return which kind of study a folder holds.

    Raises:
        UserError: It holds none.
    """
    file = folder / STUDY_FILE
    return _kind_in(read_yaml(file) if file.is_file() else {}, str(file))


def _kind_in(tree: Tree, source: str) -> type[StudyPlan]:
    kinds = study_kinds()
    if "kind" not in tree:
        raise UserError("key 'kind' is missing", where=source, expected=f"one of: {', '.join(kinds)}")
    kind = tree["kind"]
    if not isinstance(kind.value, str) or kind.value not in kinds:
        raise UserError(
            f"'kind' is {shown(kind.value)}",
            where=kind.place,
            expected=f"one of: {', '.join(kinds)}",
            hint=nearest(str(kind.value), list(kinds)),
        )
    return kinds[kind.value]
