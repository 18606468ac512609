"""The log file of a run, which also holds what libraries print."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from dure.secrets import redacted

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Redacting(logging.Formatter):
    """Keeps secrets out of a log that others may read."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return redacted(super().format(record))


class _Unfailing(io.FileIO):
    """Leaves out what a full disk does not take: a log is never why a run fails."""

    def write(self, data: Any, /) -> int:
        """Write, or say so and do not."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return len(data)


_users_stderr: list[int] = []


def users_stderr() -> int:
    """Return the descriptor of the stderr that the user reads, also while output is captured."""
    return _users_stderr[0] if _users_stderr else 2


@contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Send everything this process prints or logs to a file while the body runs.

    Both streams are redirected as file descriptors, so that what native libraries print is caught too, and as
    Python's ``sys.stdout`` and ``sys.stderr``, which in a notebook are something else.
    A terminal that a console still wants to write to has to be opened before (``os.dup`` of its descriptor).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    _users_stderr.append(saved[1])
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(target, 1)
    os.dup2(target, 2)
    root = logging.getLogger()
    raw = io.BufferedWriter(_Unfailing(path, "a"))
    # As stderr itself: a name that is no UTF-8 is printed with escapes, and is no error of whoever prints it.
    file = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    handler = logging.StreamHandler(file)
    handler.setFormatter(_Redacting(_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    root.addHandler(handler)
    others = [each for each in root.handlers if each is not handler]
    for other in others:
        root.removeHandler(other)
    level = root.level
    root.setLevel(logging.INFO)
    terminal = _terminal_too(saved[1]) if others and level <= logging.INFO else None
    try:
        with redirect_stdout(file), redirect_stderr(file):
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        if terminal is not None:
            root.removeHandler(terminal)
            terminal.stream.close()
        for other in others:
            root.addHandler(other)
        handler.close()
        file.close()
        _users_stderr.pop()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)


def _terminal_too(descriptor: int) -> logging.StreamHandler[TextIO]:
    """Show what is logged where it was shown before as well, as ``--verbose`` and ``--debug`` ask for."""
    handler: logging.StreamHandler[TextIO] = logging.StreamHandler(
        os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1)
    )
    handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    logging.getLogger().addHandler(handler)
    return handler
