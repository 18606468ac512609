"""A small process that outlives a killed driver just long enough to end the cluster it had started.

Ray ends its raylet when the driver dies, but leaves agents behind, and a leftover cluster makes the next
start misbehave. The driver holds one end of a pipe; when that end closes without a farewell, the guard ends
every process that carries the cluster's mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from dure.runtime.scratch import clear_leftovers

MARK = "DURE_CLUSTER"
"""Environment variable that a cluster's processes inherit; its value names the cluster."""
_FAREWELL = "bye"
_GRACE_SECONDS = 3.0
"""Time to end cleanly before processes are killed."""


class Guard:
    """Started by the driver before its cluster; ended with :meth:`dismiss` after the cluster is down."""

    def __init__(self, mark: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key != MARK}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _command(mark)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            text=True,
        )

    def watch_session(self, folder: str) -> None:
        """Say where the cluster's log files are, by which processes without the mark are known."""
        self._say(folder)

    def dismiss(self) -> None:
        """Tell the guard that all is well."""
        self._say(_FAREWELL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=30)

    def _say(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


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
    """Wait until the driver says farewell or dies, and clean up after it in the second case."""
    lines = sys.stdin.read().splitlines()
    if _FAREWELL not in lines:
        end_processes(mark, lines[0] if lines else None)
        clear_leftovers()


def end_processes(mark: str, session: str | None) -> int:
    """End every process of a cluster, this one excepted, and return how many there were.

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
    return len(found)


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
