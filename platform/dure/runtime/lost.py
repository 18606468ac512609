"""A cluster that is ended from outside while a command works on it: said at once, with the command that goes on.

Ray's client waits for a lost control service for a minute and then ends the process without a word; for a lost raylet
it waits forever.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dure.errors import RunError
from dure.runs.budget import study_of
from dure.secrets import redacted

SECONDS_TO_ANSWER = 5.0
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_OUT_OF_REACH = 45.0
"""A head node may restart meanwhile; Ray itself gives up after 60."""
_PARTS = {"raylet": "its raylet", "gcs_server": "its control service"}

Look = Callable[[], str | None]
"""Returns which part of a cluster is gone, or None while all is well."""


def answers(host: str, port: int) -> bool:
    """Return whether something listens on a port."""
    try:
        socket.create_connection((host, port), timeout=SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


def parts_here() -> Look:
    """Return what looks at the cluster that this process has just started."""
    parts = {
        name: process
        for process in psutil.Process().children()
        for name in _PARTS
        if process.name().startswith(name)
    }

    def look() -> str | None:
        for name, process in parts.items():
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    continue
            except psutil.NoSuchProcess:
                pass  # it is gone altogether
            return f"{_PARTS[name]} is gone"
        return None

    return look


def head_at(address: str) -> Look:
    """Return what looks at the head of a cluster that this process joined at ``host:port``."""
    host, _, port = address.rpartition(":")
    answered = looked = time.monotonic()

    def look() -> str | None:
        nonlocal answered, looked
        now = time.monotonic()
        if now - looked < _SECONDS_OUT_OF_REACH / 10:
            return None
        looked = now
        if answers(host.strip("[]"), int(port)):
            answered = now
        elif now - answered > _SECONDS_OUT_OF_REACH:
            return f"nothing answers at {address} any more"
        return None

    return look


@contextmanager
def watched(look: Look, path: Path | None, speak: Callable[[str], None]) -> Iterator[None]:
    """End this process with code 1 when its cluster is gone while the body runs, as soon as ``speak`` has said so.

    Raises:
        RunError: The body failed because the cluster was gone.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            gone = look()
            if gone is not None:
                speak(last_words(gone, path))
                # Ray's threads hold the process until they are told otherwise; the guard clears up.
                os._exit(RunError.exit_code)

    threading.Thread(target=watch, name="dure-watch", daemon=True).start()
    try:
        yield
    except Exception as error:
        gone = look()
        if gone is None:
            raise
        raise RunError(_what_goes_on(gone, path)) from error
    finally:
        over.set()


def last_words(gone: str | None, path: Path | None) -> str:
    """Return the last line of a command and what goes on; ``gone`` is None where nobody can tell what ended."""
    return redacted(f"dure: {_what_goes_on(gone, path)}")


def _what_goes_on(gone: str | None, path: Path | None) -> str:
    """Return what happened to a cluster, what is safe, and the command that goes on."""
    if gone is None:
        said = "this command or the Ray that it needs was ended from outside, or by a machine without memory"
    else:
        said = f"Ray was ended from outside while it was needed ({gone}), as `ray stop` does"
    if path is None:
        return said
    path = study_of(path)  # what it is a step of goes on as a whole
    return (
        f"{said}\n  safe: everything that is finished, and the checkpoints of the rest, in {path}\n"
        f"  try: {_command_that_goes_on(path)}"
    )


def _command_that_goes_on(path: Path) -> str:
    if Path(sys.argv[0]).name not in ("dure", "__main__.py"):
        return f"the same with resume, in {path}"
    words = sys.argv[1:]
    if any(word.startswith("unified-") for word in words):
        # Its option takes the folder, or a checkpoint, to go on from.
        is_said = any(word.partition("=")[0] == "--resume" for word in words)
        return shlex.join(["dure", *words, *(() if is_said else ("--resume", str(path)))])
    if "--resume" not in words:
        words = [*words, "--resume"]
    if not any(word in ("--output", "-o") or word.startswith("--output=") for word in words):
        words = [*words, "--output", str(path)]
    return shlex.join(["dure", *words])
