"""How long the parts of runs took on this machine, so that the next ones can be forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.files import append_json_line, parse_json

PACE_FILE = "times_of_runs.jsonl"
_NEWEST = 5
_WARM = 5
"""Steps after which a process is as fast as it becomes."""


@dataclass(frozen=True)
class Times:
    """Seconds that the parts of a run took."""

    start: float
    """What came before the first step, and what the first steps took more than later ones; no validation."""
    step: float
    """Of an optimiser step, however long its rows."""
    position: float
    """Of every position of a step beside that."""
    first_validation: float
    """What the first validation took more than later ones: scoring is made ready in it."""
    row: float
    """Of a row in a validation."""
    save: float
    """What training waited for a checkpoint in its midst."""
    end: float
    """What came after the last validation: its checkpoint, the best weights, the final model."""


@dataclass(frozen=True)
class Work:
    """What a run does that takes time."""

    steps: int
    """Optimiser steps."""
    positions: NDArray[np.float64]
    """Positions that each of the first ones computes, padding included; those after them have their mean."""
    validations: int
    """How often it validates."""
    rows: int
    """Rows of a validation."""
    saves: int
    """Checkpoints before the last one."""

    def of_first(self, steps: int) -> NDArray[np.float64]:
        """Return the positions of so many steps, shape (steps,)."""
        more = max(0, steps - len(self.positions))
        return np.append(self.positions[:steps], np.full(more, self.positions.mean()))

    def seconds(self, times: Times) -> float:
        """Return how long it takes, by the times of another run."""
        steps = self.steps * (times.step + times.position * float(self.positions.mean()))
        validations = self.validations * self.rows * times.row
        first = times.first_validation if self.validations else 0.0
        return times.start + steps + first + validations + self.saves * times.save + times.end


@dataclass(frozen=True)
class Pace:
    """What a run did in how much time."""

    device: str
    """Name of the device."""
    model: str
    """What trained: family, parameters, lengths and batch."""
    precision: str
    """What it computed in."""
    validates: str
    """How it validates: as logits or as text, with so many beams, tokens and rows at a time."""
    times: Times
    """Its parts."""


def remember(folder: Path, pace: Pace) -> None:
    """Keep the pace of a run in the cache."""
    append_json_line(folder / PACE_FILE, asdict(pace))


def known(folder: Path) -> list[Pace]:
    """Return the paces that the cache keeps, the newest last; what is damaged, or of another version, says nothing here."""
    try:
        lines = (folder / PACE_FILE).read_bytes().splitlines()
    except OSError:
        return []
    return [pace for line in lines if (pace := _pace_of(line)) is not None]


def _pace_of(line: bytes) -> Pace | None:
    try:
        record = parse_json(line)
        return Pace(**{**record, "times": Times(**record["times"])})
    except (ValueError, TypeError, KeyError):
        return None


def alike(paces: Sequence[Pace], run: tuple[str, str, str, str]) -> list[Pace]:
    """Return the newest paces of runs of the same device, model, precision and validation."""
    like = [each for each in paces if (each.device, each.model, each.precision, each.validates) == run]
    return like[-_NEWEST:]


@dataclass(frozen=True)
class _Interval:
    """Steps between two records, without validations.

    Where it ``saves``, a checkpoint was written in its beginning.
    """

    first: int
    last: int
    seconds: float
    saves: bool


def times_of(
    records: Sequence[Mapping[str, Any]], seconds: float, positions: NDArray[np.float64], rows: int
) -> Times | None:
    """Return how long the parts of a run took; None where it recorded no step.

    A step takes some time however long its rows are, and some for every position; both are fitted to what lies between
    two records (least squares, neither below zero). The first steps, and those that a checkpoint is written beside, are
    left out where others are there, and what they take more counts for the start and for saving. Records are those of
    ``metrics.jsonl``, in their order; positions are of each step, rows of a validation.
    """
    from scipy.optimize import nnls

    parts, validations, start, end = _parted(records, seconds)
    if not parts:
        return None
    plain = [each for each in parts if not each.saves]
    fitted = [each for each in plain if each.first >= _WARM] or plain[1:] or parts[1:] or parts
    sizes = np.array([[each.last - each.first, positions[each.first : each.last].sum()] for each in fitted])
    # Positions are many: in units of their mean both unknowns are seconds of a step.
    mean = max(float(positions.mean()), 1.0)
    (step, position), _ = nnls(sizes / [1.0, mean], np.array([each.seconds for each in fitted]))

    def beyond(chosen: Sequence[_Interval]) -> list[float]:
        usual = [
            step * (each.last - each.first) + position / mean * positions[each.first : each.last].sum()
            for each in chosen
        ]
        return [max(0.0, each.seconds - most) for each, most in zip(chosen, usual, strict=True)]

    later = validations[1:] or validations
    row = sum(later) / max(1, len(later) * rows)
    saving = [each for each in parts if each.saves and each not in fitted and each.first >= _WARM]
    return Times(
        start=start + sum(beyond([each for each in parts if each.first < _WARM and each not in fitted])),
        step=float(step),
        position=float(position) / mean,
        first_validation=max(0.0, validations[0] - row * rows) if validations else 0.0,
        row=row,
        save=sum(beyond(saving)) / max(1, len(saving)),
        end=end,
    )


def _parted(
    records: Sequence[Mapping[str, Any]], seconds: float
) -> tuple[list[_Interval], list[float], float, float]:
    """Return the steps of a run, its validations, and the seconds before the former and after both."""
    parts, validations = list[_Interval](), list[float]()
    start, clock, step, saves = 0.0, 0.0, 0, False
    for record in records:
        validation = float(record.get("eval_runtime") or record.get("untrained_runtime") or 0.0)
        if record["kind"] == "train" and record["step"] > step:
            parts.append(_Interval(step, int(record["step"]), float(record["seconds"]) - clock, saves))
            step, clock, saves = int(record["step"]), float(record["seconds"]), False
        elif validation:
            validations.append(validation)
            if not step:
                start = float(record["seconds"]) - validation
            clock, saves = float(record["seconds"]), bool(step)
    return parts, validations, start, max(0.0, seconds - clock)
