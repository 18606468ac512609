"""A study: several trials that together answer one question; read from YAML, checked, and run."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from dure.config import library
from dure.config.loading import checked_tree, dump_yaml, load_experiment
from dure.config.problems import shown
from dure.config.schema import Experiment, Profile
from dure.config.tree import read_extended, read_yaml
from dure.errors import UserError, nearest
from dure.files import write_text
from dure.runs.folder import STUDY_FILE
from dure.storage.pushing import kept_in_storage
from dure.studies.batch import BatchStudy

if TYPE_CHECKING:
    from dure.events import StudyListener

Model = TypeVar("Model", bound=BaseModel)

Study = BatchStudy
"""Every kind of study: a union whose members differ in ``kind``."""


def load_study(name_or_path: str) -> Study:
    """Load a study by name or file; its ``kind`` decides what it must hold.

    Raises:
        UserError: Nothing of that name, or something in it is wrong.
    """
    path = library.find("study", name_or_path)
    source = library.shown(path)
    kinds = study_kinds()
    keys = {key for kind in kinds.values() for key in kind.model_fields}
    tree = read_extended(path, "study", keys)
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
    return checked_tree(kinds[kind.value], tree, source)


def study_kinds() -> dict[str, type[Study]]:
    """Return the members of the union :data:`Study` by their ``kind``."""
    members = typing.get_args(Study) or (Study,)
    return {member.model_fields["kind"].default: member for member in members}


def stored_study(folder: Path, model: type[Model], what: str) -> Model:
    """Return the study that a folder was started with, from its ``study.yaml``.

    Args:
        folder: Folder of the study.
        model: Kind of study that it must be.
        what: That kind in words, such as ``sweep``.

    Raises:
        UserError: The folder holds none of this kind, or its file is broken.
    """
    file = folder / STUDY_FILE
    tree = read_yaml(file) if file.is_file() else {}
    if "kind" not in tree or tree["kind"].value != model.model_fields["kind"].default:
        raise UserError(
            f"this is no folder of a {what}", where=str(folder), expected=f"a folder with its {STUDY_FILE}"
        )
    return checked_tree(model, tree, str(file))


def check(experiments: Iterable[Experiment], *, with_tables: bool = True) -> None:
    """Check what can be known of experiments before anything starts, beyond what their sections say.

    Args:
        experiments: Resolved experiments.
        with_tables: Whether their tables must be there.

    Raises:
        UserError: A family, one of its options, the metric that chooses the best checkpoint, a table, or the
            cache is not as it must be.
    """
    from dure.family import load_family
    from dure.family.corpus import cache_folder, check_sources

    if with_tables:
        cache_folder()
    for experiment in experiments:
        _ = load_family(experiment).best_metric
        if with_tables:
            check_sources(experiment)


def check_rows(experiments: Iterable[Experiment]) -> None:
    """Check the rows of experiments before a study starts that would meet the same mistake in every trial.

    Raises:
        UserError: A table is not what its family needs; with file, row and remedy.
    """
    from dure.family import load_family
    from dure.family.corpus import check_tables

    for experiment in experiments:
        check_tables(load_family(experiment))


def check_some_rows(experiments: Sequence[Experiment]) -> None:
    """Check before a batch starts that not all of its experiments would fail for their tables.

    One that would does not stop the others: its own trial says so.

    Raises:
        UserError: All would; what is wrong for the first of them.
    """
    wrong: list[UserError] = []
    for experiment in experiments:
        try:
            check_rows([experiment])
        except UserError as error:
            wrong.append(error)
        else:
            return
    if wrong:
        raise wrong[0]


def study_experiments(
    study: BatchStudy, overrides: Iterable[str] = (), chosen: str | None = None
) -> list[Experiment]:
    """Load the experiments of a study, all with the same overrides on top.

    Args:
        study: The study.
        overrides: ``a.b=value`` texts.
        chosen: Numbers from 1 or names, with commas (``--only``); all when not given.

    Raises:
        UserError: Something in them is wrong, or ``chosen`` names none.
    """
    from dure.studies.batch import only

    overrides = list(overrides)
    names = list(study.experiments) if chosen is None else only(study.experiments, chosen)
    return [load_experiment(name, overrides) for name in names]


@kept_in_storage
def batch(
    study: BatchStudy,
    experiments: Sequence[Experiment],
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    address: str | None = None,
    follower: StudyListener | None = None,
) -> dict[str, Any]:
    """Run the experiments of a study side by side and return the summary.

    A finished experiment of the folder is not run again; an interrupted one continues from its checkpoint.

    Raises:
        UserError: An experiment, its data or the cluster is wrong.
        RunError: Ray does not start.
    """
    from dure.reporting.summary import summary_text
    from dure.reporting.tracking import trackers_for
    from dure.studies.adapter import run_study
    from dure.studies.batch import Batch

    if resume:
        from dure.runs.folder import stored_experiment

        experiments = [stored_experiment(path / each.name, each) for each in experiments]
    path = path.resolve()
    write_text(path / STUDY_FILE, dump_yaml(study))
    summary = run_study(
        Batch(study, experiments),
        profile=profile,
        path=path,
        follower=follower,
        listeners=trackers_for,
        address=address,
    )
    write_text(path / "experiment_summary.txt", summary_text(summary))
    return summary
