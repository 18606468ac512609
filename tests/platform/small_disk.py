"""A file system of its own that is soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MEGABYTE = 1_000_000


@contextmanager
def disks(folder: Path) -> Iterator[Callable[[int], Path]]:
    """Give what mounts a disk of so many megabytes; they go at the end."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Path:
        disk = folder / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes * MEGABYTE}", "none", str(disk)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount")
        mounted.append(disk)
        return disk

    try:
        yield mount
    finally:
        for disk in mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(folder: Path, leaving: int) -> Path:
    """Leave so many bytes of room, and return the file that takes the rest."""
    filler = folder / "filler"
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        # Another process may have taken some of it meanwhile: then this one takes what is left, and a write less.
        file.write(b"\0" * max(0, free - leaving))
    return filler
