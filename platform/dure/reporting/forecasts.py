"""The words of ``dure forecast``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dure.files import in_bytes


def forecast_text(record: Mapping[str, Any]) -> str:
    """Return the forecast of an experiment or a study for people."""
    lines = []
    for each in record["experiments"]:
        lines.append(each["name"])
        if "unknown" in each:
            lines.append(f"  unknown: {each['unknown']}")
            continue
        lines.append(f"  {each['sentence']}")
        parts = {name: size for name, size in each["memory_parts_mb"].items() if size >= 1}
        lines.append(f"  memory: {', '.join(f'{name} {size:,.0f} MiB' for name, size in parts.items())}")
        lines.append(f"  of {each['free_mb']:,.0f} MiB {each['where']}: {each['verdict']}")
        lines += [f"  would fit: {words}" for words in each["would_fit"]]
        lines.append(f"  disk: {in_bytes(each['disk'])}")
    if record["study"] is not None:
        lines.append(f"the {record['study']}: {_range(record['seconds'])}, disk {in_bytes(record['disk'])}")
    return "\n".join(lines)


def _range(seconds: Sequence[float] | None) -> str:
    if seconds is None:
        return "time unknown"
    return " to ".join(f"{each / 3600:.1f} h" if each >= 5400 else f"{each / 60:.1f} min" for each in seconds)
