"""Who works in a folder: one process at a time, also where several machines share the storage.

The lock is a file in the folder that names its holder, and of a background job also that. Whoever asks who works
there reads it, and nothing else. On one machine a holder that is no more is recognised at once by its number and
start; from another machine, where processes cannot be looked at, by a heartbeat that stays away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from dure.config.tree import is_torn
from dure.errors import UserError, shell_word
from dure.files import process_space
from dure.secrets import redacted

logger = logging.getLogger(__name__)

JOB = "DURE_JOB"
"""Environment variable: the background job that a process belongs to."""
LOCK = ".dure.lock"
"""File that names the process that works in a folder; hidden, so that it is never mirrored."""
BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
"""A holder on another machine that has shown no sign of life for so long is taken for dead."""
_LEVELS = 3
"""So far apart a trial, or a stage of one, and its study lie at most."""
_DEAD = ("Z", "X")


@dataclass(frozen=True)
class Holder:
    """A process that works in a folder."""

    host: str
    """Name of its machine."""
    space: str
    """What its number is unique in: the session of the machine's kernel, and the container."""
    pid: int
    """Its number."""
    born: float
    """When it began, in the kernel's own count: another process of its number has another."""
    since: str
    """When it began to work in the folder, in UTC."""
    command: str
    """What it was started with."""
    token: str
    """Tells its lock from every other."""
    path: str = ""
    """The folder; a lock of an earlier dure does not say it."""
    job: str | None = None
    """The background job that it is the command of; None of one in a terminal."""

    @property
    def is_near(self) -> bool:
        """Whether its process can be looked at from here."""
        return (self.host, self.space) == (socket.gethostname(), process_space())

    @property
    def is_me(self) -> bool:
        """Whether it is this process, by a token that only it knows.

        What the machine is called, and on a Mac when a process began, change with its network and its clock.
        """
        return self.pid == os.getpid() and self.token in _tokens

    @property
    def is_suspended(self) -> bool:
        """Whether its process, which is near, does not go on until it is told to."""
        with contextlib.suppress(psutil.Error):
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        return False


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Let nobody else work in the folder of a run or study, nor in one in or around it, while the body runs.

    Does nothing where this thread holds the folder, or one around it, already. The folder is made if it is not there.
    One thread of a process works at a time: its output, its random numbers and its temporary files are the process's.

    Raises:
        UserError: Somebody else works there; names who, where, since when and with which command. Or another thread
            of this process works, wherever that is. Or its path is no text, which no record could name.
    """
    path = path.resolve()
    if is_torn(str(path)):
        raise UserError(
            "there are bytes in this path that are no UTF-8",
            where=str(path),
            expected="a folder whose path is text",
            hint="rename the folder, or --output elsewhere",
        )
    with _entering:
        around = [_leases[each] for each in (path, *path.parents) if each in _leases]
        for lease in _leases.values():
            # A forked process has what its parent knew, and holds nothing of it.
            if lease.me.is_me and lease.owner != threading.get_ident():
                raise UserError(
                    f"this process works in {lease.file.parent} already, in another thread",
                    where=str(path),
                    expected="one run or study at a time in a process",
                    hint="wait for its end, or start this one in a process of its own",
                )
            if not lease.me.is_me and lease in around:
                raise _taken(lease.me, lease.file.parent)
        if not around:
            _leases[path] = lease = _Lease(path)
    if around:
        yield
        return
    try:
        yield
    finally:
        with _entering:
            lease.release()
            del _leases[path]


def require_free(path: Path) -> None:
    """Check that no other process works in a folder, or in one in or around it.

    Raises:
        UserError: One does.
    """
    path = path.resolve()
    above = [each / LOCK for each in (path, *path.parents[:_LEVELS])]
    for file in (*above, *_below(path)):
        holder = _named(file)
        if holder is not None and not holder.is_me and _is_alive(holder, file):
            raise _taken(holder, file.parent)


def holder_of(path: Path) -> Holder | None:
    """Return who works in the folder of a run or study, or None."""
    file = path / LOCK
    holder = _named(file)
    return holder if holder is not None and _is_alive(holder, file) else None


def _below(path: Path) -> Iterator[Path]:
    """Give the locks in a folder; what vanishes while it is read, since somebody works there, is passed over."""
    for place, folders, files in os.walk(path):
        depth = len(Path(place).relative_to(path).parts)
        if depth and LOCK in files:
            yield Path(place, LOCK)
        folders[:] = [
            each for each in folders if depth < _LEVELS and not each.startswith((".", "checkpoint-"))
        ]


class _Lease:
    """The lock of a folder in the hands of this process, kept alive by a thread."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.file = path / LOCK
        self.me = _myself(path)
        _tokens.add(self.me.token)
        self.owner = threading.get_ident()
        with _alone(path):
            self._take()
            try:
                require_free(path)
            except UserError:
                self.file.unlink(missing_ok=True)
                raise
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="dure-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the folder back."""
        self._over.set()
        self._thread.join()
        holder = _named(self.file)
        if holder is not None and holder.token == self.me.token:
            self.file.unlink(missing_ok=True)

    def _take(self) -> None:
        while True:
            try:
                self._create()
            except FileExistsError:
                holder = _named(self.file)
                if holder is None:
                    continue  # it was given back just now
                if _is_alive(holder, self.file):
                    raise _taken(holder, self.file.parent) from None
                self._remove(holder)
            else:
                return

    def _create(self) -> None:
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(self.me), file, ensure_ascii=False)
        except OSError:  # a full disk: one that names nobody would keep everybody out
            self.file.unlink(missing_ok=True)
            raise

    def _remove(self, dead: Holder) -> None:
        """Remove the lock of a holder that is no more, unless another process did so and holds the folder now."""
        aside = self.file.with_name(f"{LOCK}.{self.me.token}")
        with contextlib.suppress(FileNotFoundError):
            self.file.rename(aside)
            found = _named(aside)
            if found is not None and found.token != dead.token:
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.file)
            aside.unlink()

    def _live(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._beat()
            except OSError as error:  # storage that does not answer may do so the next time
                logger.warning("the lock %s is not renewed: %s", self.file, error)

    def _beat(self) -> None:
        holder = _named(self.file)
        if holder is None:
            # Whoever works in a folder that is gone finds that out when it records something.
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                self._create()
        elif not holder.token:
            logger.warning("the lock %s is not renewed, since it cannot be read", self.file)
        elif holder.token != self.me.token:
            # This process was suspended, or cut off from storage, for longer than its lease. In order it cannot
            # end: whatever it wrote now would be among the records of its successor.
            said = f"{self.file.parent}: {_described(holder)} by now, so this process ends at once\n"
            os.write(2, said.encode())
            os._exit(1)
        else:
            os.utime(self.file)


_leases: dict[Path, _Lease] = {}
_tokens: set[str] = set()
"""Tokens of the locks of this process, and of the one that it was forked from."""
_entering = threading.Lock()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let processes of one machine look at a folder's lock, and take it, one after the other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # storage without it: a lock is still created once only
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _named(file: Path) -> Holder | None:
    """Return who a lock names, or None when there is no lock; somebody unknown when it cannot be read."""
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError):
        return Holder("an unknown machine", "", 0, 0.0, "an unknown time", "not known", "", str(file.parent))


def _is_alive(holder: Holder, file: Path) -> bool:
    since = born(holder.pid) if holder.is_near else None
    if since is not None or (holder.is_near and not _is_anothers(holder.pid)):
        return since == holder.born
    try:  # by its heartbeat: it is on another machine, or hidden from other users (hidepid)
        return _time_there(file.parent) - file.stat().st_mtime < LEASE_SECONDS
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _is_anothers(pid: int) -> bool:
    """Return whether a process is there that is another user's."""
    try:
        with contextlib.suppress(ProcessLookupError, OverflowError):
            os.kill(pid, 0)
    except PermissionError:
        return True
    return False


def _time_there(folder: Path) -> float:
    """Return the time by the clock of the storage, whatever those of machines say; by this one's where we may not write."""
    beside = folder / f"{LOCK}.{uuid.uuid4().hex}"
    try:
        beside.touch()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return time.time()
        raise
    now = beside.stat().st_mtime
    beside.unlink()
    return now


def _myself(path: Path) -> Holder:
    program = Path(sys.argv[0])
    words = [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]
    return Holder(
        path=str(path),
        host=socket.gethostname(),
        space=process_space(),
        pid=os.getpid(),
        born=born(os.getpid()) or 0.0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        command=redacted(shlex.join(words)),
        token=uuid.uuid4().hex,
        job=os.environ.get(JOB),
    )


def born(pid: int) -> float | None:
    """Return when a process began, in a count that no change of the clock touches; None of one that is no more."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if state in _DEAD else float(fields[18])
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _described(holder: Holder) -> str:
    return f"process {holder.pid} of {holder.host} works in it since {holder.since} ({holder.command})"


def _taken(holder: Holder, folder: Path) -> UserError:
    said = _described(holder)
    if not holder.is_near:
        hint = f"end it there; when it is gone, the folder is free within {LEASE_SECONDS:.0f} s of its last sign of life"
    elif holder.is_suspended:
        said = f"{said}; it is suspended"
        hint = f"`kill -CONT {holder.pid}` lets it go on; after `kill -9 {holder.pid}` the folder is free"
    else:
        way = f"kill {holder.pid}" if holder.job is None else f"dure stop {shell_word(folder)}"
        hint = f"wait for its end, or end it in order with `{way}`; another --output is free"
    return UserError(said, where=str(folder), expected="a folder that nobody works in", hint=hint)
