"""Training one experiment: the trainer, its records and its checkpoints."""
