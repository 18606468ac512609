"""What a machine's disk may take of a study, and how long a run waits for room on it."""

from __future__ import annotations

from pydantic import Field

from dure.config.scalars import Float
from dure.config.section import Section


class StorageConfig(Section):
    """Room for the files of runs."""

    max_gb: Float | None = Field(default=None, gt=0.0)
    """Gigabytes (10⁹ bytes) that the folder of a run or study may take; what it no longer needs is deleted then."""
    pause_minutes: Float = Field(default=60.0, ge=0.0)
    """Minutes that a run waits for room for its next checkpoint before it ends, to be resumed later."""
