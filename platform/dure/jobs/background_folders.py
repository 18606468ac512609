"""Folders that background jobs work in: claimed, found again by their pid file, and left in order."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

import psutil

from dure.errors import RunError, UserError
from dure.files import write_json, write_text
from dure.jobs.background_environment import JOB
from dure.jobs.background_records import CLOCK_SECONDS, records
from dure.runs.lock import require_free
from dure.runtime.cluster import cluster_of_job

PID = "dure.pid"
_SECONDS_TO_END = 120.0


def claim(path: Path, *, pid_file: str = PID) -> None:
    """Say that the checks of a command are over and its work in a folder begins.

    In a background job this writes the pid file, and tells the terminal that waits for the job where it works.

    Args:
        path: The folder.
        pid_file: Name of the file in it that gets the number of this process.

    Raises:
        UserError: Another process works there.
    """
    path = path.resolve()
    refuse_second(path)
    job = _own_job()
    if job is None:
        return
    write_text(path / pid_file, f"{os.getpid()}\n")
    atexit.register((path / pid_file).unlink, missing_ok=True)
    write_json(records().claim(job), {"pid": os.getpid(), "path": str(path)})


def find(path: Path) -> psutil.Process | None:
    """Return the background process that works in a folder, or None; a stale pid file is not believed."""
    for file in path.resolve().glob("*.pid"):
        try:
            process = psutil.Process(int(file.read_text(encoding="utf-8")))
            # A process that was born after the file was written got the number of the one that is meant.
            is_meant = process.create_time() <= file.stat().st_mtime + CLOCK_SECONDS
            if is_meant and process.status() != psutil.STATUS_ZOMBIE and JOB in process.environ():
                return process
        except (OSError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return None


def refuse_second(path: Path) -> None:
    """Check that no process but this one works in a folder.

    Raises:
        UserError: One does.
    """
    running = find(path)
    if running is not None and running.pid != os.getpid():
        raise UserError(
            f"process {running.pid} works in this folder already", where=str(path), hint=f"dure stop {path}"
        )
    require_free(path)


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
            expected="the folder of a command that was started with --background, or the name of a job (`dure jobs`)",
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


def _own_job() -> str | None:
    """Return the background job whose command this process is; the job's workers are not."""
    return os.environ.get(JOB) if cluster_of_job() is not None else None
