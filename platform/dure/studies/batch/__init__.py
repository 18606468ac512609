"""The batch: several experiments side by side, compared in one table."""
