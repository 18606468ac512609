"""How fast runs were on this machine, so that the next ones can be forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dure.files import append_json_line, read_json_lines

PACE_FILE = "paces.jsonl"
_NEWEST = 5
_WARM = 5
"""Steps after which a process is as fast as it becomes."""
_SAME, _OTHER = (0.85, 1.15), (0.33, 3.0)
"""How far a run may be from those before it: of the same model and lengths, and of another model."""


@dataclass(frozen=True)
class Pace:
    """What a run did in how much time.

    Attributes:
        device: Name of the device.
        model: What trained: family, parameters, lengths and batch.
        precision: What it computed in.
        flops: Floating-point operations of its training, as a trace counts them.
        seconds: Time of its training, without validations.
        validates: How it validates: as logits or as text, with so many beams, tokens and rows at a time.
        rows: Rows that it validated in all.
        validation: Seconds of its validations.
    """

    device: str
    model: str
    precision: str
    flops: float
    seconds: float
    validates: str = ""
    rows: int = 0
    validation: float = 0.0


def remember(folder: Path, pace: Pace) -> None:
    """Keep the pace of a run in the cache."""
    append_json_line(folder / PACE_FILE, asdict(pace))


def rates(folder: Path, device: str, model: str, precision: str) -> tuple[float, float] | None:
    """Return the floating-point operations a second that a run may have, least and most; None where none was here."""
    known = [Pace(**record) for record in read_json_lines(folder / PACE_FILE)]
    here = [
        each for each in known if (each.device, each.precision) == (device, precision) and each.seconds > 0
    ]
    same = [each for each in here if each.model == model]
    found = [each.flops / each.seconds for each in (same or here)[-_NEWEST:]]
    if not found:
        return None
    least, most = _SAME if same else _OTHER
    return min(found) * least, max(found) * most


def seconds_a_row(folder: Path, device: str, model: str, validates: str) -> tuple[float, float] | None:
    """Return the seconds that a validation may take for a row, least and most; None where this was not measured."""
    known = [Pace(**record) for record in read_json_lines(folder / PACE_FILE)]
    found = [
        each.validation / each.rows
        for each in known
        if (each.device, each.model, each.validates) == (device, model, validates) and each.rows
    ][-_NEWEST:]
    return (min(found) * _SAME[0], max(found) * _SAME[1]) if found else None


def training_pace(records: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Return steps of training and their seconds, of the records of a run.

    Validations are left out, and the first steps, in which memory and files are still warmed up, where enough others
    are there.

    Args:
        records: Of ``metrics.jsonl``, in their order.
    """
    steps, seconds, validations = [0], [0.0], 0.0
    for record in records:
        validations += _runtime(record)
        if record["kind"] == "train" and record["step"] > steps[-1]:
            steps.append(int(record["step"]))
            seconds.append(float(record["seconds"]) - validations)
    first = next((at for at, step in enumerate(steps[:-1]) if step >= _WARM), 0)
    return steps[-1] - steps[first], seconds[-1] - seconds[first]


def validation_pace(records: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Return how many validations the records of a run are of, and their seconds."""
    found = [_runtime(record) for record in records if record["kind"] == "eval"]
    found = [each for each in found if each]
    return len(found), sum(found)


def _runtime(record: Mapping[str, Any]) -> float:
    return float(record.get("eval_runtime") or record.get("untrained_runtime") or 0.0)
