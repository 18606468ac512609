"""What stands on the page of a run or a study, made of its folder alone."""
