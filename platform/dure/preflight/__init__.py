"""``dure validate``: whether everything is as a run needs it, found out without training."""
