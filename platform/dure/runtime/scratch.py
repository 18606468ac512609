"""Temporary files of a command: in one folder, short enough for Ray's sockets, that goes with the command.

Ray's session, the sockets of processes that load batches, and what trackers unpack lie there. Its lock is held by the
command's process and released by the system whatever ends that, so that a later command can remove what a killed one
left, and nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dure.errors import UserError

_PREFIX = "dure-"
_NUM_DIGITS = 8
_LOCK = "lock"
_LONGEST_BASE = 22
"""Bytes: a socket's path may have 107, and below this Ray needs 82 (``dure-…/ray/session_<time>_<pid>/sockets/…``)."""
_RAY_TMPDIR = "RAY_TMPDIR"


@dataclass
class _Scratch:
    """The folder of one process, with the file that holds its lock."""

    path: Path
    lock: TextIO
    pid: int


_own: _Scratch | None = None


def scratch_folder() -> Path:
    """Return the folder for temporary files of this process; made when first asked for, removed at its end.

    Raises:
        UserError: There is no place whose path is short enough for sockets.
    """
    global _own
    if _own is None or _own.pid != os.getpid():
        clear_leftovers()
        _own = _make(_base())
        atexit.register(_remove, _own)
    return _own.path


@contextmanager
def restored(*names: str) -> Iterator[None]:
    """Let the body change variables of the environment, and give them back their values after it."""
    saved = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def temporary_files() -> Iterator[Path]:
    """Let this process, and every process that it starts, put temporary files into its folder while the body runs."""
    folder = scratch_folder()
    before = tempfile.tempdir
    with restored("TMPDIR"):
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def clear_leftovers() -> None:
    """Remove the folders of commands that were killed."""
    import fcntl

    for base in _bases():
        for folder in base.glob(_PREFIX + "[0-9a-f]" * _NUM_DIGITS):  # and nothing of a user's
            with contextlib.suppress(OSError):
                if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                    continue
                with (folder / _LOCK).open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)


def _bases() -> list[Path]:
    """Return where such folders may lie, the best place first."""
    given = os.environ.get(_RAY_TMPDIR)
    if given:
        return [Path(given)]
    return list(dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))))


def _base() -> Path:
    given = os.environ.get(_RAY_TMPDIR)
    for base in _bases():
        is_short = len(os.fsencode(base.absolute())) <= _LONGEST_BASE
        if given:
            base.mkdir(parents=True, exist_ok=True)
        if is_short and os.access(base, os.W_OK | os.X_OK):
            return base.absolute()
    places = f"'{given}' is no place" if given else f"neither '{tempfile.gettempdir()}' nor '/tmp' is a place"
    raise UserError(
        f"{places} for Ray's files",
        where=_RAY_TMPDIR if given else "TMPDIR",
        expected=f"a folder that can be written to, with a path of at most {_LONGEST_BASE} bytes: sockets lie in it",
        hint="RAY_TMPDIR=/tmp" if given else "RAY_TMPDIR=FOLDER",
    )


def _make(base: Path) -> _Scratch:
    import fcntl

    name = f"{_PREFIX}{uuid.uuid4().hex[:_NUM_DIGITS]}"
    hidden = base / f".{name}"
    hidden.mkdir(mode=0o700)
    lock = (hidden / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Under its name only with its lock: another command might take it for a leftover.
    return _Scratch(hidden.rename(base / name), lock, os.getpid())


def _remove(scratch: _Scratch) -> None:
    if scratch.pid == os.getpid():
        shutil.rmtree(scratch.path, ignore_errors=True)
        scratch.lock.close()
