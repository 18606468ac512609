"""A small process that outlives a killed driver just long enough to end the cluster it had started.

Ray ends its raylet when the driver dies, but leaves agents behind, and a leftover cluster makes the next
start misbehave. The driver holds one end of a pipe; when that end closes without a farewell, the guard ends
every process that bears the cluster's mark in its environment.
"""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

MARK = "DURE_CLUSTER"
"""Environment variable that a cluster's processes inherit; its value names the cluster."""
_FAREWELL = b"bye\n"


class Guard:
    """Started by the driver before its cluster; ended with :meth:`dismiss` after the cluster is down."""

    def __init__(self, mark: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key != MARK}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from dure.runtime.guard import watch; watch({mark!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Tell the guard that all is well."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            try:
                pipe.write(_FAREWELL)
                pipe.close()
            except BrokenPipeError:
                return
        self._process.wait(timeout=30)


def watch(mark: str) -> None:
    """Wait until the driver says farewell or dies, and clean up after it in the second case."""
    if sys.stdin.buffer.read() != _FAREWELL:
        end_marked(mark)


def end_marked(mark: str, *, grace_seconds: float = 3.0) -> int:
    """End every process whose environment bears the mark, this one excepted; return how many there were."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            continue
    for process in found:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(found, timeout=grace_seconds)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=grace_seconds)
    return len(found)


def _signal(send: object) -> None:
    try:
        send()  # type: ignore[operator]
    except psutil.NoSuchProcess:
        return
