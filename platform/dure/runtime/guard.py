"""A small process that outlives a killed driver just long enough to say so and to end the cluster it had started.

Ray ends its driver in C++, without a word, when a part of it is lost. It ends its raylet when the driver dies, but
leaves agents behind, and a leftover cluster makes the next start misbehave. The driver holds one end of a pipe; when
that end closes without a farewell, the guard tells the user what the driver could not, and ends every process that
carries the cluster's mark in its environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dure.runs.folder import EVENTS_FILE
from dure.runs.logs import users_stderr
from dure.runtime.scratch import clear_leftovers

MARK = "DURE_CLUSTER"
"""Environment variable that a cluster's processes inherit; its value names the cluster."""
_GRACE_SECONDS = 3.0
"""Time to end cleanly before processes are killed."""


class Guard:
    """Started by the driver before its cluster; ended with :meth:`dismiss` after the cluster is down.

    Args:
        mark: Of the processes that end with the driver.
        words: What the user reads when the driver is gone without a farewell.
        path: Folder whose stream of events gets them too.
    """

    def __init__(self, mark: str, words: str = "", path: Path | None = None) -> None:
        environment = {key: value for key, value in os.environ.items() if key != MARK}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _command(mark)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=users_stderr(),
            env=environment,
            start_new_session=True,
            text=True,
        )
        self._tell(words=words, path=None if path is None else str(path.absolute()))

    def watch_session(self, folder: str) -> None:
        """Say where the cluster's log files are, by which processes without the mark are known."""
        self._tell(session=folder)

    def speak(self, words: str) -> None:
        """Let the user read these words now; this process ends then."""
        self._tell(words=words, is_over=True)
        if self._process.stdout is not None:
            self._process.stdout.read()

    def dismiss(self) -> None:
        """Tell the guard that all is well."""
        self._tell(words=None, is_over=True)
        self._process.communicate(timeout=30)

    def _tell(self, **known: object) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # whoever killed it has ended nothing else
                print(json.dumps(known), file=self._process.stdin, flush=True)


@dataclass(frozen=True)
class ClusterHere:
    """A cluster of this machine that dure started."""

    pids: tuple[int, ...]
    """Its processes, as far as they can be looked into."""
    is_guarded: bool
    """Whether its guard lives, which ends it when its driver dies; else it is a leftover."""


def clusters_here() -> list[ClusterHere]:
    """Return the clusters on this machine that dure started and that have processes now."""
    marked: dict[str, list[int]] = {}
    commands: set[str] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            commands.update(process.cmdline()[2:3])
            mark = process.environ().get(MARK)
            if mark is not None:
                marked.setdefault(mark, []).append(process.pid)
    return [ClusterHere(tuple(pids), _command(mark) in commands) for mark, pids in marked.items()]


def _command(mark: str) -> str:
    """Return what the guard of a cluster runs."""
    return f"from dure.runtime.guard import watch; watch({mark!r})"


def watch(mark: str) -> None:
    """Wait until the driver dismisses this process, or dies: then print its last words and end its cluster."""
    known: dict[str, Any] = {}
    while "is_over" not in known and (line := sys.stdin.readline()):
        known |= json.loads(line)
    if known.get("words") is None:
        return
    with contextlib.suppress(OSError):  # a terminal that is gone
        # The block beneath the driver's lines has hidden the cursor.
        print(
            f"\x1b[?25h{known['words']}" if sys.stderr.isatty() else known["words"],
            file=sys.stderr,
            flush=True,
        )
    os.close(1)  # the driver waits for that
    sys.stdin.read()  # the driver is not to be ended as one of its cluster's processes
    if known["path"] is not None and Path(known["path"]).is_dir():
        from dure.events.stream import EventLog

        EventLog(Path(known["path"], EVENTS_FILE), "driver").notified(known["words"])
    end_processes(mark, known.get("session"))
    clear_leftovers()


def end_processes(mark: str, session: str | None) -> None:
    """End every process of a cluster, this one excepted.

    They have ``mark`` in their environment. Some of Ray's agents overwrite theirs with their title; they are known by
    the log files that they hold open in the session's folder.
    """
    found = [process for process in psutil.process_iter() if _belongs(process, mark, session)]
    for process in found:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(found, timeout=_GRACE_SECONDS)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=_GRACE_SECONDS)


def _belongs(process: psutil.Process, mark: str, session: str | None) -> bool:
    try:
        if process.pid == os.getpid():
            return False
        if process.environ().get(MARK) == mark:
            return True
        return session is not None and any(
            file.path.startswith(f"{session}/logs/") for file in process.open_files()
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return False


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        send()
