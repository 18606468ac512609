"""What is known of background jobs, on disk: it outlives the cluster that ran them; and the folders they work in.

``$DURE_CACHE/background/MACHINE/`` holds for every job its record (JSON), its log, what it said of itself when it began,
and while it runs the environment that it was started with, which only its owner can read. Machines may share the cache,
as one home on all of them: of the processes of another one nothing can be known here, and nothing of it is cleared up.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from dure.errors import RunError, UserError
from dure.family.corpus import cache_folder
from dure.files import json_or_none, make_folder, process_space, write_json, write_text
from dure.jobs.jobs import ENDED, Job
from dure.runs.lock import born, holder_of, require_free

_NUM_KEPT = 100
_SECONDS_TO_END = 120.0


@dataclass(frozen=True)
class ClusterKeeper:
    """The process that holds the cluster of background jobs."""

    pid: int
    """Its process."""
    born: float
    """When that began, by which a later process of the same number is told from it."""
    url: str
    """Where the cluster's dashboard is."""
    session: str
    """Ray's folder of the cluster's log files."""
    temporary: str
    """Folder that Ray was given; gone when the cluster has ended."""

    @property
    def lives(self) -> bool:
        """Whether its process is there."""
        return born(self.pid) == self.born


@dataclass(frozen=True)
class Records:
    """The folder of records."""

    path: Path

    @property
    def keeper_file(self) -> Path:
        """What the keeper says of itself."""
        return self.path / "keeper.json"

    @property
    def keeper_log(self) -> Path:
        """What the keeper and its Ray print."""
        return self.path / "keeper.log"

    def log(self, job_id: str) -> Path:
        """Return the file that gets all that a job prints."""
        return self.path / f"{job_id}.log"

    def environment(self, job_id: str) -> Path:
        """Return the file with the environment of a job, secrets included."""
        return self.path / f"{job_id}.environment"

    def claim(self, job_id: str) -> Path:
        """Return the file in which the terminal that waits for a job finds the lock of its folder, once it has one."""
        return self.path / f"{job_id}.claim"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands, and the keeper's end, waiting while the body runs."""
        import fcntl

        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keeper(self) -> ClusterKeeper | None:
        """Return the keeper, or None when it does not live."""
        found = json_or_none(self.keeper_file)
        keeper = None if found is None or "born" not in found else ClusterKeeper(**found)
        return keeper if keeper is not None and keeper.lives else None

    def write(self, job: Job) -> None:
        """Keep what is known of a job; the oldest records of those that have ended go."""
        write_json(self.path / f"{job.id}.json", asdict(job))
        ended = [each.id for each in self.jobs() if each.state in ENDED]
        for old in ended[:-_NUM_KEPT]:
            for file in self.path.glob(f"{old}.*"):
                file.unlink(missing_ok=True)

    def jobs(self) -> list[Job]:
        """Return the jobs, the latest last; what was running when its keeper died has failed."""
        found = [
            Job(**record) for record in map(json_or_none, sorted(self.path.glob("dure-*.json"))) if record
        ]
        alive = self.keeper() is not None
        return [each if alive or each.state in ENDED else replace(each, state="failed") for each in found]

    def job(self, job_id: str) -> Job | None:
        """Return a job, or None when there is no record of it."""
        return next((each for each in self.jobs() if each.id == job_id), None)

    def forget_environment(self, job_id: str) -> None:
        """Remove the environment of a job that has ended."""
        self.environment(job_id).unlink(missing_ok=True)

    def write_environment(self, job_id: str, values: dict[str, Any]) -> None:
        """Write the environment of a job into a file that only its owner can read."""
        file = self.environment(job_id)
        with os.fdopen(
            os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as stream:
            json.dump(values, stream)


def records() -> Records:
    """Return the records of this user's background jobs on this machine.

    Raises:
        UserError: Their folder cannot be written to.
    """
    # A machine whose processes are told apart by nothing but their numbers may be called otherwise tomorrow: a Mac.
    background = cache_folder().resolve() / "background"
    folder = background / socket.gethostname() if process_space() else background
    make_folder(folder, where="background jobs (environment variable DURE_CACHE says where)")
    for each in (background, folder):
        with contextlib.suppress(OSError):
            each.chmod(0o700)
    return Records(folder)


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
