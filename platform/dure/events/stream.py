"""The stream of a run or study: numbers and words, written once and followed by anyone.

The stream is ``events.jsonl`` of the run's or study's folder, one JSON object a line: ``at`` (UTC), ``origin`` (who
says it), ``event`` (its kind) and the fields of that kind. It is only ever added to. Its main worker writes it, and
the process that started the run adds its own words, such as those on a restart: every line is one ``write`` to a file
opened with ``O_APPEND``, which a local file system never mixes with another. A run that goes back to a checkpoint says
so by its next :class:`RunStart`: numbers of later steps that stand before it count no more.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dure.events.kinds import (
    Event,
    Notice,
    RunListener,
    RunProgress,
    RunSaved,
    RunStart,
    StudyEnd,
    StudyStart,
    TrialStatus,
)
from dure.runs.folder import RunResult
from dure.secrets import redacted

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""How often a stream is looked at that is followed."""
RESERVE_BYTES = 32_768
"""Room on the disk that a stream holds beyond its end, so that it can say that the disk is full."""
_KEEP_SIZE = 1
_HEAD_BYTES = 80
_LEAST_BYTES = 4096
_BLOCK_BYTES = 512

_KINDS: Mapping[str, type[Any]] = {
    "started": RunStart,
    "progress": RunProgress,
    "saved": RunSaved,
    "notice": Notice,
    "finished": RunResult,
    "study_started": StudyStart,
    "trial": TrialStatus,
    "study_finished": StudyEnd,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_WORDS = {"message", "error"}
"""Fields that hold what libraries said, which may quote secrets."""


@dataclass(frozen=True)
class Entry:
    """One line of a stream.

    ``at`` is in UTC; ``origin`` is who said it: ``worker 0``, ``driver`` for the process that started the run,
    ``study``.
    """

    at: datetime
    origin: str
    event: Event


class EventLog(RunListener):
    """Adds to a stream. Whatever keeps it from that, the run goes on, and the line is tried again with the next one.

    ``relay`` gets every line too, without its end, and takes it to who cannot see the file.
    """

    def __init__(self, path: Path, origin: str, relay: Callable[[bytes], None] | None = None) -> None:
        self._path = path
        self._origin = origin
        self._relay = relay
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()

    def write(self, event: Event) -> None:
        """Add an event, without the secrets that its words quote; it can be read as soon as this returns."""
        record = {"at": datetime.now(UTC).isoformat(), "origin": self._origin, "event": _NAMES[type(event)]}
        values = asdict(event)
        for key in _WORDS & values.keys():
            values[key] = redacted(values[key]) if values[key] else values[key]
        if "metrics" in values:
            # JSON holds null for what is not finite.
            values["metrics"] = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in values["metrics"].items()
            }
        line = json.dumps(record | values, ensure_ascii=False, default=str).encode("utf-8")
        if self._relay is not None:
            self._relay(line)
        with self._lock:
            self._waiting.append(line + b"\n")
            try:
                self._write_waiting()
            except OSError as error:
                logger.warning("%s is not written to: %s", self._path, error)

    def started(self, start: RunStart, notify: Callable[[str], None]) -> None:
        """Add the start."""
        self.write(start)

    def saved(self, checkpoint: Path) -> None:
        """Add the checkpoint."""
        self.write(RunSaved(checkpoint))

    def progressed(self, progress: RunProgress) -> None:
        """Add the numbers."""
        self.write(progress)

    def notified(self, message: str) -> None:
        """Add the line."""
        self.write(Notice(message))

    def finished(self, result: RunResult) -> None:
        """Add the end."""
        self.write(result)

    def _write_waiting(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _reserve(descriptor)
            while self._waiting:
                size = os.fstat(descriptor).st_size
                # What a full disk or a kill cut off is a line of its own, which readers leave out.
                is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                line = b"\n" * is_torn + self._waiting[0]
                if os.write(descriptor, line) < len(line):
                    return
                del self._waiting[0]
        finally:
            os.close(descriptor)

    def __reduce__(self) -> tuple[type[EventLog], tuple[Path, str, Callable[[bytes], None] | None]]:
        return EventLog, (self._path, self._origin, self._relay)


class Follower:
    """Reads what is new in a stream, wherever it is written: nothing twice, nothing left out.

    The file need not be there yet, may vanish, and may come back as another one, such as a copy from storage. What
    stands there already is new only ``from_beginning``.
    """

    def __init__(self, file: Path, *, from_beginning: bool = False) -> None:
        self.file = file
        self._head = b""
        self._offset = 0
        self._seen: set[int] = set()
        self._is_full = False
        if not from_beginning:
            self.new()

    def new(self, relayed: Iterable[bytes] = ()) -> list[Entry]:
        """Return what was added since the last call; a line that is not whole yet comes with a later one.

        Args:
            relayed: Lines of the stream that came by another way, whether the file can be seen from here or not.
        """
        entries = []
        for line in (*self._lines(), *relayed):
            if (number := hash(line)) in self._seen:
                continue
            self._seen.add(number)
            if (entry := _entry(line)) is not None:
                entries.append(entry)
        return entries + self._cut_off()

    def _lines(self) -> list[bytes]:
        try:
            with self.file.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                head = stream.read(_HEAD_BYTES)
                if size < self._offset or not head.startswith(self._head):
                    self._offset = 0
                self._head = head
                if size == self._offset:
                    return []
                stream.seek(self._offset)
                whole, end, _ = stream.read().rpartition(b"\n")
        except OSError:
            return []
        self._offset += len(whole) + len(end)
        return [line for line in whole.split(b"\n") if line]

    def _cut_off(self) -> list[Entry]:
        """Return the notice of a full disk where those who write had no room reserved to write it themselves."""
        folder = self.file.parent
        try:
            disk = os.statvfs(folder)
            reserved = _reserved(self.file.stat()) if self.file.exists() else 0
        except OSError:
            return []
        was_full, self._is_full = self._is_full, disk.f_bavail * disk.f_frsize < _LEAST_BYTES
        if was_full or not self._is_full or reserved >= _LEAST_BYTES:
            return []
        message = f"the disk is full in {folder}: free some or Ctrl-C; nothing is lost"
        return [Entry(datetime.now(UTC), "driver", Notice(message))]


@contextmanager
def following(look: Callable[[], None]) -> Iterator[None]:
    """Call a function again and again while the body runs, in a thread of its own, and once more after it."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            try:
                look()
            except Exception:
                logger.exception("what is new cannot be shown")

    thread = threading.Thread(target=watch, name="dure-follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()


@contextmanager
def follow(
    file: Path, listener: RunListener, *, relayed: Callable[[], Iterable[bytes]] = tuple
) -> Iterator[Callable[[], None]]:
    """Pass everything new in the stream of a run to a listener while the body runs, except its end.

    Gives what looks for it at once.

    A worker that loses another one ends too and says so, and yet the run goes on: only who started the run knows
    when it is over.
    """
    follower, notify, lock = Follower(file), EventLog(file, "driver").notified, threading.Lock()

    def look() -> None:
        with lock:
            for entry in follower.new(relayed()):
                pass_on(entry.event, listener, notify)

    with following(look):
        yield look


def pass_on(event: Event, listener: RunListener, notify: Callable[[str], None]) -> None:
    """Pass an event of a run to a listener, except its end."""
    match event:
        case RunStart():
            listener.started(event, notify)
        case RunProgress():
            listener.progressed(event)
        case RunSaved():
            listener.saved(event.checkpoint)
        case Notice():
            listener.notified(event.message)


def read_events(file: Path) -> list[Entry]:
    """Read a stream as it counts: without the numbers of steps that came again after a resumption."""
    kept: list[tuple[str, Entry]] = []
    name = ""
    for entry in Follower(file, from_beginning=True).new():
        if isinstance(start := entry.event, RunStart):
            name = start.name
            kept = [
                (of, each)
                for of, each in kept
                if of != name
                or not isinstance(each.event, RunProgress)
                or each.event.step <= start.resumed_step
            ]
        kept.append((name, entry))
    return [entry for _, entry in kept]


def _entry(line: bytes) -> Entry | None:
    """Return what a line says; None for one that was cut off or is of a kind that is not known."""
    try:
        record = json.loads(line)
        metrics = record.get("metrics")
        if metrics is not None:
            record["metrics"] = {key: math.nan if value is None else value for key, value in metrics.items()}
        event = _adapter(record["event"]).validate_python(record)
        return Entry(datetime.fromisoformat(record["at"]), record["origin"], event)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, RecursionError):
        return None


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[name])


def _reserved(known: os.stat_result) -> int:
    """Return how many bytes of the disk a file holds beyond its end."""
    return known.st_blocks * _BLOCK_BYTES - known.st_size


def _reserve(descriptor: int) -> None:
    """Hold room on the disk beyond the end of a file, as far as the file system can and has it."""
    allocate = getattr(ctypes.CDLL(None), "fallocate", None)
    known, size = os.fstat(descriptor), ctypes.c_int64
    if allocate is not None and _reserved(known) < RESERVE_BYTES // 2:
        allocate(descriptor, _KEEP_SIZE, size(known.st_size), size(RESERVE_BYTES))
