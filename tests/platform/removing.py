"""Removing a folder that another thread or process still writes to."""

import shutil


def remove(folder):
    """Remove a folder until it is gone: what is renamed in it meanwhile ends a removal with FileNotFoundError."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
