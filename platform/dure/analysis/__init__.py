"""What records and checkpoints tell: pure functions over them, usable without Ray."""
