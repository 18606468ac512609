"""The files that keep the weights of a run's epochs, by their names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dure.files import written_beside

BEST = "best_model.pt"
RAW = "raw_state"
"""Key of the weights that training went on with, in files whose ``model_state`` is their average."""
_EPOCH = re.compile(r"(?:checkpoint_)?epoch_(\d+)(?:_lr_.*)?\.pt")


def epochs_of(folder: Path) -> dict[int, Path]:
    """Return the files of a folder by epoch, first one first."""
    found = {epoch: path for path in folder.glob("*.pt") if (epoch := epoch_of(path)) is not None}
    return dict(sorted(found.items()))


def epoch_of(path: Path) -> int | None:
    """Return the epoch whose weights a file holds, by its name; None for any other file."""
    match = _EPOCH.fullmatch(path.name)
    return None if match is None else int(match[1])


def mark_best(folder: Path, epoch: int) -> Path:
    """Let ``best_model.pt`` be the file of an epoch, without taking its room twice where links are possible."""
    source, best = epochs_of(folder)[epoch], folder / BEST
    with written_beside(best) as beside:
        try:
            os.link(source, beside)
        except OSError:
            beside.write_bytes(source.read_bytes())
    return best
