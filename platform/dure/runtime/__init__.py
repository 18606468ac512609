"""Where runs happen: clusters, machines, and experiments as Ray Train jobs."""
