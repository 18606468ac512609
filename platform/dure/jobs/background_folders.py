"""Folders that background jobs work in: claimed, found again by their pid file, and left cleanly."""

from __future__ import annotations

import atexit
import contextlib
import os
from pathlib import Path
from typing import Any

import psutil

from dure.errors import RunError, UserError, shell_word
from dure.files import write_json, write_text
from dure.jobs.background_environment import FILE, JOB
from dure.jobs.background_records import Records, records
from dure.runs.lock import born, require_free
from dure.runtime.cluster import cluster_of_job

PID = "dure.pid"
_SECONDS_TO_END = 120.0


def claim(path: Path, *, pid_file: str = PID) -> None:
    """Say that the checks of a command are over and its work in a folder begins.

    In a background job this writes the pid file, and tells the terminal that waits for the job where it works.

    The file gets the number of this process.

    Raises:
        UserError: Another process works there.
    """
    path = path.resolve()
    refuse_second(path)
    job = os.environ.get(JOB)
    if (
        job is None or cluster_of_job() is None
    ):  # the workers of a job have its environment, and are not its command
        return
    write_text(path / pid_file, f"{os.getpid()}\n")
    atexit.register(_forget, path / pid_file, os.getpid())
    write_json(records().claim(job), _said(os.getpid(), path))


def find(path: Path) -> psutil.Process | None:
    """Return the background process that works in a folder, or None; a stale pid file is not believed."""
    found = _running(path)
    return None if found is None else found[0]


def _running(path: Path) -> tuple[psutil.Process, Path] | None:
    """Return the background process that works in a folder, with its pid file."""
    for file in path.resolve().glob("*.pid"):
        try:
            process = psutil.Process(int(file.read_text(encoding="utf-8")))
            if _works_in(process, path.resolve()):
                return process, file
        except (OSError, ValueError, KeyError, psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return None


def _works_in(process: psutil.Process, path: Path) -> bool:
    """Return whether a process is the one that said of itself, when it began, that it works in a folder.

    Its environment says which job it is of, and where the records of that are: who asks may have others.
    """
    environment = process.environ()
    if JOB not in environment or FILE not in environment:
        return False
    said = Records(Path(environment[FILE]).parent).read_claim(environment[JOB])
    return said == _said(process.pid, path)


def _said(pid: int, path: Path) -> dict[str, Any]:
    """Return what a process says of itself; when it began tells it from a later one of its number."""
    return {"pid": pid, "born": born(pid), "path": str(path)}


def refuse_second(path: Path) -> None:
    """Check that no process but this one works in a folder.

    Raises:
        UserError: One does.
    """
    running = find(path)
    if running is not None and running.pid != os.getpid():
        raise UserError(
            f"process {running.pid} works in this folder already",
            where=str(path),
            hint=f"dure stop {shell_word(path)}",
        )
    require_free(path)


def stop(path: Path) -> int:
    """End the background process of a folder cleanly, wait for its end, and return its number.

    Raises:
        UserError: None works there.
        RunError: It does not end.
    """
    running = _running(path)
    if running is None:
        require_free(path)  # names what works there in a terminal
        raise UserError(
            "nothing of dure runs there in the background",
            where=str(path),
            expected="the folder of a command that was started with --background, or the name of a job (`dure jobs`)",
        )
    process, file = running
    process.terminate()
    _, alive = psutil.wait_procs([process], timeout=_SECONDS_TO_END)
    if alive:
        raise RunError(
            f"process {process.pid} has not ended within {_SECONDS_TO_END:.0f} s; kill -9 {process.pid}"
        )
    _forget(file, process.pid)
    return int(process.pid)


def _forget(file: Path, pid: int) -> None:
    """Remove a pid file, if it is still that of this process."""
    with contextlib.suppress(OSError, ValueError):
        if int(file.read_text(encoding="utf-8")) == pid:
            file.unlink()
