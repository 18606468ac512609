"""What of a study may be deleted when its disk budget is spent, and in which order."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dure.errors import UserError
from dure.files import in_bytes, parse_json, write_json
from dure.runs.checkpoints import STATE_FILE, checkpoints, remove_checkpoint
from dure.runs.epochs import BEST, epochs_of
from dure.runs.folder import RUN_RECORD, STUDY_FILE, RunFolder, StageFolder, folder_at
from dure.runs.manifest import faults, has_manifest

logger = logging.getLogger(__name__)

NEEDED_EPOCHS = "epochs_to_keep.json"
"""The epochs of a run that may be a module's sweet spot; without this file all of them may be."""
_TURNS = {
    ("checkpoint", True): (0, "neither the best nor the last checkpoint of a finished run"),
    ("epoch", True): (2, "an epoch of a finished run that is no candidate for a sweet spot"),
    ("checkpoint", False): (3, "neither the best nor the last checkpoint of its run"),
    ("epoch", False): (4, "an epoch that is no candidate for a sweet spot"),
}
"""When what a run can spare goes, and why it may, by its kind and whether the run is finished."""
_FOLDERS_ABOVE = 3
"""A stage lies in its candidate's folder, and that in the study's; a sweep may lie in that of a unified training."""


@dataclass(frozen=True)
class Kept:
    """A checkpoint or the weights of an epoch, and all that decides whether it may go."""

    path: Path
    """Where it is."""
    kind: Literal["checkpoint", "epoch"]
    """What it is."""
    number: int
    """Its step or epoch; of equals the smaller goes first."""
    size: int
    """Bytes that its deletion frees."""
    is_best: bool = False
    """Whether it holds the best weights of its run, or might."""
    is_last: bool = False
    """Whether it is the newest of its kind in its run."""
    is_needed: bool = False
    """Whether the next stage begins with it, or an epoch may be a sweet spot."""
    run_is_finished: bool = False
    """Whether its run is over, never to be continued."""
    model: Path | None = None
    """The final model of its run, which holds the best weights too, if it is there."""

    def turn(self) -> tuple[int, str] | None:
        """Return when it goes, the lower the sooner, and why it may; None for what is protected."""
        if not (self.is_best or self.is_last or self.is_needed):
            return _TURNS[self.kind, self.run_is_finished]
        if self.kind == "checkpoint" and self.run_is_finished and self.model and not self.is_needed:
            return 1, "its run is finished and the final model is there"
        return None


def plan(kept: Iterable[Kept], num_bytes: int) -> list[tuple[Kept, str]]:
    """Return what is to be deleted to free a number of bytes, and why each may be.

    It is no more than it takes, and nothing that is protected: so it may free less, when that is too much.
    """
    turns = [(turn, each) for each in kept if (turn := each.turn()) is not None]
    turns.sort(key=lambda pair: (pair[0][0], pair[1].number, str(pair[1].path)))
    chosen: list[tuple[Kept, str]] = []
    freed = 0
    for (_, reason), each in turns:
        if freed >= num_bytes:
            break
        chosen.append((each, reason))
        freed += each.size
    return chosen


def study_of(run: Path) -> Path:
    """Return the folder whose disk budget a run counts to: that of its study, or its own."""
    above = [run, *run.parents][: _FOLDERS_ABOVE + 1]
    marked = [each for each in above if (each / STUDY_FILE).is_file() or (each / RUN_RECORD).is_file()]
    return marked[-1] if marked else run


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder; a file of several names counts once."""
    sizes = {}
    for path in (Path(place, name) for place, _, names in os.walk(folder) for name in names):
        try:
            status = path.lstat()
        except FileNotFoundError:  # of another trial, which goes on meanwhile
            continue
        if stat.S_ISREG(status.st_mode):
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def bytes_of_weights(run: RunFolder) -> int:
    """Return the bytes of a run's checkpoints, epochs and final model."""
    folders = [*checkpoints(run.checkpoints).values(), run.final_model]
    return sum(map(bytes_in, folders)) + sum(
        file.stat().st_size for file in epochs_of(run.checkpoints).values()
    )


def survey(study: Path) -> list[Kept]:
    """Return all checkpoints and epochs of a study's runs."""
    return [each for run in runs_in(study) for each in _of_run(run)]


def collect(study: Path, num_bytes: int, notify: Callable[[str], None]) -> int:
    """Delete what :func:`plan` says, log each deletion with its reason, report their number, and return freed bytes."""
    freed = count = 0
    # What turns out to be protected after all is put aside, and the plan made again.
    kept = survey(study)
    while freed < num_bytes and (deletions := plan(kept, num_bytes - freed)):
        for each, reason in deletions:
            kept.remove(each)
            if each.model is not None and faults(each.model):
                logger.warning("%s stays, since the final model of its run is broken", each.path)
            elif delete(each):
                logger.info("deleted %s to keep to storage.max_gb: %s", each.path, reason)
                freed += each.size
                count += 1
    if count:
        notify(
            f"storage.max_gb is reached: {in_bytes(freed)} of {count} checkpoints and epochs that are no longer "
            "needed were deleted; the log says which and why"
        )
    return freed


def record_needed(folder: Path, epochs: Iterable[int]) -> None:
    """Write which epochs beside it must stay."""
    write_json(folder / NEEDED_EPOCHS, sorted(epochs))


def runs_in(study: Path) -> Iterator[RunFolder]:
    """Give the runs of a study, or the run of a folder; also what has no more than the record of an experiment."""
    for place, folders, names in os.walk(study):
        if RUN_RECORD in names:
            yield folder_at(Path(place))
        # What a run's own parts are called holds no other run.
        folders[:] = [
            each for each in folders if each != "final_model" and not each.startswith((".", "checkpoint-"))
        ]


def _of_run(run: RunFolder) -> Iterator[Kept]:
    model = run.final_model if has_manifest(run.final_model) else None
    is_finished = _is_finished(run)
    found, epochs = checkpoints(run.checkpoints), epochs_of(run.checkpoints)
    best_step, best_epoch = _best(found)
    for step, path in found.items():
        yield Kept(
            path,
            "checkpoint",
            step,
            bytes_in(path),
            is_best=best_step is None or step == best_step,
            is_last=step == max(found),
            run_is_finished=is_finished,
            model=model,
        )
    needed = _needed(run.checkpoints)
    parent = run.checkpoints / BEST
    for epoch, path in epochs.items():
        try:
            status = path.stat()
            is_parent = parent.is_file() and parent.samefile(path)
        except FileNotFoundError:
            continue
        yield Kept(
            path,
            "epoch",
            epoch,
            # A second name keeps the bytes.
            status.st_size if status.st_nlink == 1 else 0,
            is_best=epoch == best_epoch or (best_epoch is None and not is_finished),
            is_last=epoch == max(epochs),
            is_needed=is_parent or needed is None or epoch in needed,
            run_is_finished=is_finished,
        )


def _is_finished(run: RunFolder) -> bool:
    try:
        result = run.read_result()
    except UserError:  # what cannot be read says nothing, and its run stays as it is
        return False
    finished = result is not None and result.state == "completed"
    # A stage looks for its best epoch after its run: until it has written its record all epochs stay.
    return finished and (not isinstance(run, StageFolder) or run.training_metrics.is_file())


def _best(found: dict[int, Path]) -> tuple[int | None, int | None]:
    """Return step and epoch of the best checkpoint by the newest one; None for what is not known."""
    for path in reversed(found.values()):
        try:
            state = parse_json((path / STATE_FILE).read_bytes())
            best, step, epoch = state["best_global_step"], state["global_step"], state["epoch"]
        except (OSError, ValueError, KeyError, TypeError):
            return None, None
        return (best or step), (round(epoch * best / step) if best and step else None)
    return None, None


def _needed(folder: Path) -> set[int] | None:
    try:
        return set(parse_json((folder / NEEDED_EPOCHS).read_bytes()))
    except (OSError, ValueError, TypeError):  # then it is not known
        return None


def delete(kept: Kept) -> bool:
    """Delete it, and return whether it was still there: another run of the study may have been first."""
    try:
        if kept.kind == "epoch":
            kept.path.unlink()
        else:
            remove_checkpoint(kept.path)
    except FileNotFoundError:
        return False
    return True
