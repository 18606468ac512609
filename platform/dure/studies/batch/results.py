"""What a batch came to; ``experiment_summary.json`` of its folder."""

from __future__ import annotations

from typing import Literal

from dure.studies.results import Definitions, TrialResults


class BatchResults(TrialResults):
    """The experiments side by side."""

    kind: Literal["batch"]
    metrics: tuple[str, ...]
    """Columns of the table; the first one ranks."""
    definitions: Definitions
    """Direction and unit of every metric, by its name."""
    best: str | None
    """The best experiment by the first metric."""
