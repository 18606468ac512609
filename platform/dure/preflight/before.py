"""What is checked before anything starts, the same for every verb and every kind of study; cheap checks come first.

``dure validate`` makes these checks too, by the same functions, so that both say the same words; it goes on after the
first that fails, where these stop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.events import Notify
from dure.family import load_family
from dure.preflight.checks import CannotTellError, Note
from dure.preflight.settings import batch, best_metric, foretold, sources, targets, tracking
from dure.runs.budget import bytes_in
from dure.runs.folder import RunFolder
from dure.runs.resuming import started_with

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """What runs will leave on the disk."""

    experiments: Sequence[Experiment]
    """What runs."""
    num_copies: int = 1
    """Runs of each."""
    folder: Path | None = None
    """Folder that is continued, whose files are written already; None of a new one."""
    apart: Sequence[Path] = ()
    """Folders in it whose files are counted by themselves."""


def files_of_run(experiment: Experiment, folder: Path | None, *, apart: Sequence[Path] = ()) -> list[Files]:
    """Return what a run will leave: nothing more when it is finished, and not to become longer.

    Folders that are kept ``apart`` in the one that is continued are counted by themselves.

    Raises:
        UserError: A record in the folder is broken.
    """
    if folder is not None:
        result, before = RunFolder(folder).read_result(), started_with(folder)
        is_over = result is not None and result.state == "completed"
        if is_over and before is not None and before.training.epochs >= experiment.training.epochs:
            return []
    return [Files([experiment], folder=folder, apart=apart)]


def check_settings(experiments: Sequence[Experiment], *, with_tables: bool = True) -> None:
    """Check what can be known of experiments without reading a table, beyond what their sections say.

    Where ``with_tables``, their tables must be there.

    Raises:
        UserError: A family, one of its options, the metric that chooses the best checkpoint, a table, or the
            cache is not as it must be.
    """
    from dure.family.corpus import cache_folder

    if with_tables:
        cache_folder()
    for experiment in experiments:
        family = load_family(experiment)
        tracking(Note(), experiment)
        best_metric(Note(), family)
        targets(Note(), family)
        if with_tables:
            sources(Note(), family)


def before_run(
    read: Sequence[Experiment],
    *,
    files: Sequence[Files],
    profile: Profile,
    output: Path | None,
    notify: Notify,
    address: str | None = None,
    any_will_do: bool = False,
) -> None:
    """Check everything beside :func:`check_settings` that would end a run or study for a mistake of its user.

    The rows of experiments in ``read`` are read; ``files`` are still to be written. Nodes of a cluster at an address
    fetch checkpoints for themselves. Where ``any_will_do``, checkpoints may be missing and rows wrong as long as those
    of one experiment are right.

    Raises:
        UserError: What is wrong, with its place and what to do.
    """
    from dure.family.corpus import check_tables
    from dure.modeling.precision import resolve

    for scale in sorted({each.rehearsal.learning_rate_scale for each in read if each.rehearsal.enabled}):
        notify(
            "rehearsal: a miniature with random weights on few rows; its learning rates are "
            f"{scale:g} times the real ones, 1 at most (rehearsal.learning_rate_scale)"
        )
    for experiment in read:
        batch(Note(), experiment, profile)
        resolve(experiment.training.precision, profile, experiment.model.architecture or "", logger.info)
    if address is None:
        _check_each(read, _check_checkpoint, any_will_do=any_will_do)
    # The cache keeps the tables for the run.
    _check_each(read, lambda each: check_tables(load_family(each)), any_will_do=any_will_do)
    _check_disk(files, output, notify)


def _check_each(
    experiments: Sequence[Experiment], check: Callable[[Experiment], None], *, any_will_do: bool
) -> None:
    """Make a check of experiments; what is wrong with the first counts, or with all where any will do."""
    wrong: list[UserError] = []
    for experiment in experiments:
        try:
            check(experiment)
        except UserError as error:
            if not any_will_do:
                raise
            wrong.append(error)
    if wrong and len(wrong) == len(experiments):
        raise wrong[0]


def _check_checkpoint(experiment: Experiment) -> None:
    """Check that the checkpoint is at hand, here or on a hub that answers, and can do what is asked of it.

    A rehearsal needs none, but the kind of a model for the family: that of a folder, or ``model.architecture``.
    """
    from dure.modeling.hub import require_checkpoint

    if not experiment.rehearsal.enabled:
        from dure.preflight.model import require_limits

        require_checkpoint(experiment.model)
        require_limits(load_family(experiment))
    elif (task := load_family(experiment).task()) is not None:
        from dure.modeling.rehearsal import small_config

        small_config(experiment, task)


def _check_disk(files: Sequence[Files], output: Path | None, notify: Notify) -> None:
    """Check that what is still to be written fits onto the disk."""
    from dure.outputs import outputs
    from dure.preflight.forecast import check_room

    total = sum(map(_left_of, files))
    if total:
        note = Note()
        check_room(note, total, output or outputs())
        notify(f"disk: {note.found}")


def _left_of(files: Files) -> int:
    """Return the bytes still to be written; a miniature's files, and what is not known, do not count."""
    total = 0
    for experiment in files.experiments:
        if experiment.rehearsal.enabled:
            continue
        try:
            total += files.num_copies * foretold(load_family(experiment)).disk
        except CannotTellError as error:
            logger.info("disk of %s: %s", experiment.name, error.reason)
        except UserError:
            # The run names it, with its place, when it loads the model.
            logger.info("disk of %s: its model cannot be looked at", experiment.name)
    written = 0 if files.folder is None else bytes_in(files.folder) - sum(map(bytes_in, files.apart))
    return max(0, total - written)
