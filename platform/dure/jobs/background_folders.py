"""Folders that background jobs work in: made known to the terminal that waits, and left cleanly."""

from __future__ import annotations

import atexit
from dataclasses import asdict
from pathlib import Path

import psutil

from dure.errors import RunError, UserError
from dure.files import write_json, write_text
from dure.jobs.background_records import records
from dure.runs.lock import holder_of, require_free

_SECONDS_TO_END = 120.0


def claim(path: Path, *, pid_file: str | None = None) -> None:
    """Say that the checks of a command are over and its work in a folder, which it holds, begins.

    A background job tells the terminal that waits for it. Scripts of old may read its number in ``pid_file``; here only
    the lock is believed.
    """
    holder = holder_of(path)
    if holder is None or holder.job is None:
        return
    if pid_file is not None:
        write_text(path / pid_file, f"{holder.pid}\n")
        atexit.register((path.resolve() / pid_file).unlink, missing_ok=True)
    write_json(records().claim(holder.job), asdict(holder))


def stop(path: Path) -> int:
    """End the background job of a folder cleanly, wait for its end, and return the number of its process.

    Raises:
        UserError: None works there, or it cannot be ended from here.
        RunError: It does not end.
    """
    holder = holder_of(path)
    if holder is None or holder.job is None or not holder.is_near or holder.is_suspended:
        require_free(path)  # names what works there, and how that is ended
        holder = None
    if holder is None or holder.path != str(path.resolve()):  # a copy of a folder has its lock too
        raise UserError(
            "nothing of dure runs there in the background",
            where=str(path),
            expected="the folder of a command that was started with --background, or the name of a job (`dure jobs`)",
        )
    try:
        process = psutil.Process(holder.pid)
        process.terminate()
        process.wait(_SECONDS_TO_END)
    except psutil.NoSuchProcess:
        pass  # it ended just now
    except psutil.AccessDenied:
        raise UserError(
            f"process {holder.pid} is another user's", where=str(path), hint="its owner can stop it"
        ) from None
    except psutil.TimeoutExpired:
        raise RunError(
            f"process {holder.pid} has not ended within {_SECONDS_TO_END:.0f} s; kill -9 {holder.pid}"
        ) from None
    return holder.pid
