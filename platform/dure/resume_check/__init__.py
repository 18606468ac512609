"""``dure verify-resume``: whether a run that is cut and resumed is the run that was never cut."""
