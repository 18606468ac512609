"""Showing what runs and studies do: the console, W&B tracking and tables of results."""
