"""Checkpoint folders of a run: their names, which are whole, and which may go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")
STATE_FILE = "trainer_state.json"
"""Written last into a checkpoint before it gets its name."""
RUNNING_LOSS_FILE = "running_loss.pt"
"""Losses since the last record, in a checkpoint that was not due but made for a stop; no other has it."""
AVERAGE_FILE = "ema.pt"
"""Averaged weights in a checkpoint, whose other files hold those that training goes on with."""


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint of an optimiser step."""
    return f"checkpoint-{step}"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the whole checkpoints of a run by optimiser step, oldest first.

    A checkpoint is written beside and renamed, so one that bears its name is whole.
    """
    if not folder.is_dir():
        return {}
    found = {}
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and (path / STATE_FILE).is_file():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run."""
    return next(reversed(checkpoints(folder).values()), None)


def retain(folder: Path, limit: int, protected: Iterable[int]) -> list[int]:
    """Delete the oldest checkpoints above ``limit`` and return the steps that were deleted.

    The newest one and the protected steps (the best; whatever an analysis still needs) are never deleted,
    even when that leaves more than ``limit``. A checkpoint that was made for a stop takes nobody's place: it goes
    as soon as there is a newer one.
    """
    found = checkpoints(folder)
    kept = {max(found, default=-1), *protected}
    extra = [step for step, path in found.items() if (path / RUNNING_LOSS_FILE).is_file()]
    due = [step for step in found if step not in extra]
    removable = [step for step in due if step not in kept]
    deleted = [step for step in extra if step not in kept] + removable[: max(0, len(due) - limit)]
    for step in deleted:
        # Renamed first: a kill while deleting must not leave half a checkpoint under its name.
        doomed = folder / f".{checkpoint_name(step)}.deleted"
        found[step].rename(doomed)
        shutil.rmtree(doomed)
    return deleted


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half written or half deleted."""
    for path in folder.glob(".checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run that will not be continued."""
    for path in checkpoints(folder).values():
        path.rename(doomed := folder / f".{path.name}.deleted")
        shutil.rmtree(doomed)
    remove_leftovers(folder)


def remove_weights(folder: Path) -> None:
    """Remove the checkpoints and the final model of a finished run; its records stay."""
    remove_checkpoints(folder)
    shutil.rmtree(folder / "final_model", ignore_errors=True)
