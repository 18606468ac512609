"""Commands that run on by themselves: started, found again by their folder, and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from dure.errors import RunError, UserError
from dure.files import write_text

_FOLDER = "DURE_BACKGROUND"
"""Environment variable of a background process: the folder that it works in, by which it is known as ours."""
_SECONDS_TO_END = 120.0


@dataclass(frozen=True)
class Background:
    """A command that runs in the background.

    Attributes:
        pid: Its process.
        path: Folder that it works in.
        log: File that gets its progress and everything that is printed.
    """

    pid: int
    path: Path
    log: Path


def start(arguments: Sequence[str], path: Path, *, pid_file: str, log: Path) -> Background:
    """Start a command of dure in a session of its own, so that it outlives the terminal.

    Args:
        arguments: The command's arguments, from the verb on.
        path: Folder that it works in.
        pid_file: Name of the file in ``path`` that gets the number of its process.
        log: File that gets all that it prints.

    Raises:
        UserError: One runs in this folder already.
    """
    path = path.resolve()
    refuse_second(path)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dure", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, _FOLDER: str(path)},
            start_new_session=True,
        )
    write_text(path / pid_file, f"{process.pid}\n")
    return Background(process.pid, path, log)


def find(path: Path) -> psutil.Process | None:
    """Return the background process that works in a folder, or None; a stale pid file is not believed."""
    path = path.resolve()
    for file in path.glob("*.pid"):
        try:
            process = psutil.Process(int(file.read_text(encoding="utf-8")))
            if process.environ().get(_FOLDER) == str(path) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return None


def refuse_second(path: Path) -> None:
    """Check that no background process but this one works in a folder.

    Raises:
        UserError: One does.
    """
    running = find(path)
    if running is not None and running.pid != os.getpid():
        raise UserError(
            f"process {running.pid} works in this folder already", where=str(path), hint=f"dure stop {path}"
        )


def stop(path: Path) -> int:
    """End the background process of a folder in order, wait for its end, and return its number.

    Raises:
        UserError: None works there.
        RunError: It does not end.
    """
    process = find(path)
    if process is None:
        raise UserError(
            "nothing of dure runs there in the background",
            where=str(path),
            expected="the folder of a command that was started with --background",
        )
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=_SECONDS_TO_END)
    if alive:
        raise RunError(
            f"process {process.pid} has not ended within {_SECONDS_TO_END:.0f} s; kill -9 {process.pid}"
        )
    for file in path.glob("*.pid"):
        file.unlink(missing_ok=True)
    return int(process.pid)
