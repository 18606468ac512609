"""How fast runs were on this machine, so that the next ones can be foretold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from dure.files import append_json_line, read_json_lines

PACE_FILE = "pace.jsonl"
_NEWEST = 5
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
        seconds: Its time, with validations.
    """

    device: str
    model: str
    precision: str
    flops: float
    seconds: float


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
