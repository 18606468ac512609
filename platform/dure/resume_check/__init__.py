"""``dure verify-resume``: whether a run that is cut and resumed is the run that was never cut."""

from dure.resume_check.checking import verify_resume

__all__ = ["verify_resume"]
