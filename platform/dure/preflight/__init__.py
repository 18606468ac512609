"""``dure validate``: whether everything is as a run needs it, found out without training."""

from dure.preflight.checks import Check
from dure.preflight.validating import as_record, validate

__all__ = ["Check", "as_record", "validate"]
