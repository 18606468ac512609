"""Words that options of studies may be: apart from their plans, so that the command line's help waits for no pydantic."""

from __future__ import annotations

from typing import Literal

SamplerName = Literal["tpe", "grid", "random", "qmc", "cmaes", "gp"]
"""Who proposes the points of a sweep."""
StopperName = Literal["none", "asha", "median"]
"""Who stops trials of a sweep early."""
OnBaseline = Literal["stop", "warn"]
"""What happens to a candidate that is no better than the trivial baseline at the first ratio."""
