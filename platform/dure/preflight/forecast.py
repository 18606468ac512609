"""Whether memory and disk suffice for what a run is forecast to take."""

from __future__ import annotations

import shutil
from pathlib import Path

from dure.config.schema import Profile
from dure.errors import UserError
from dure.family import Family
from dure.files import existing, in_bytes
from dure.preflight.checks import Note
from dure.reporting.figures import memory
from dure.runs.forecast import NOTHING_FITS, Forecast

_MIB = 1024**2


def check_memory(note: Note, family: Family, profile: Profile) -> None:
    """Check that the longest micro-batch fits into the memory that is free, by a trace of its step.

    Raises:
        UserError: It does not even at the least, with what would.
        CannotTellError: The checkpoint is not on this machine.
    """
    from dure.preflight.foreseeing import foresee, what_fits
    from dure.training.memory import free_memory

    foreseen = foresee(family, profile)
    free, where = free_memory(profile)
    least, most = foreseen.forecast.memory
    parts = " + ".join(
        f"{memory(size / _MIB)} of {name}" for name, size in foreseen.forecast.parts.items() if size >= _MIB
    )
    note.found = f"{memory(least / _MIB)} to {memory(most / _MIB)} of {memory(free / _MIB)} {where} ({parts})"
    if most <= free:
        return
    advice = "; or ".join(what_fits(foreseen, profile, free)) or NOTHING_FITS
    if least > free:
        raise UserError(note.found, hint=advice)
    note.found += "; it may not fit"
    note.remedy = advice


def check_disk(note: Note, foretold: Forecast, folder: Path) -> None:
    """Check that the checkpoints that a run keeps fit onto the disk."""
    check_room(note, foretold.disk, folder, foretold.words)


def check_room(note: Note, needed: int, folder: Path, detail: str = "") -> None:
    """Check that so many bytes fit onto the disk of a folder.

    The folder need not be there yet; ``detail`` says what makes the bytes up.
    """
    free = shutil.disk_usage(existing(folder)).free
    note.found = f"{in_bytes(needed)} of {in_bytes(free)} free{f' ({detail})' if detail else ''}"
    if needed > free:
        raise UserError(
            note.found,
            where=str(folder),
            hint="smaller training.save_total_limit and keep_epochs_limit, or --output elsewhere",
        )
