"""What Ctrl-C, SIGTERM and a closed terminal (SIGHUP) do: once, a request to end cleanly; twice, the end at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STOP_FILE = "stop_requested"
"""File in the folder of a run or study that asks whatever trains there to save a checkpoint and end."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command: Ctrl-C, ``kill``, and a terminal that is closed or a connection that is lost."""
INTERRUPTED_CODE = 130
"""Exit code of a command that Ctrl-C ended, as shells count it: 128 and the number of the signal."""
STOPPING = (
    "stopping: a checkpoint is written first, after the step, the loading or the validation that is going on; "
    "Ctrl-C again ends at once"
)
_ASKED, _OVER = b"a", b"o"


class Interrupted(KeyboardInterrupt):
    """A run or study ended cleanly because a stop was asked for; ``--resume`` continues it."""


class _Place:
    """Where a signal leaves its request; a thread does the writing, since a handler must not wait for anything."""

    def __init__(self, file: Path, notify: Callable[[str], None]) -> None:
        self._file = file
        self._tell = notify
        self._is_asked = False
        self._reading, self._writing = os.pipe()
        self._thread = threading.Thread(target=self._wait, name="dure-stop", daemon=True)
        self._thread.start()

    def ask(self) -> bool:
        """Ask for a stop, from a signal handler; returns False when that was done before."""
        if self._is_asked:
            return False
        self._is_asked = True
        os.write(self._writing, _ASKED)
        return True

    def close(self) -> None:
        """End the thread."""
        os.write(self._writing, _OVER)
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _wait(self) -> None:
        while os.read(self._reading, 1) == _ASKED:
            try:
                self._file.touch()
            except OSError as error:
                self._tell(f"{self._file} cannot be written ({error.strerror}): Ctrl-C again ends without it")
            else:
                self._tell(STOPPING)


_place: _Place | None = None
_owner: int | None = None
_raised_by: int | None = None
"""The signal that was answered by an exception last."""
_SECONDS_UNTIL_AGAIN = 0.05


def install() -> None:
    """Answer the signals that end a command from now on; does nothing outside the main thread.

    One stays ignored that whoever started this process had ignored, as a shell does with ``&`` and ``nohup``. An answer that
    Python drops, since the signal came while something was being finalised, is given again.
    """
    global _owner
    if threading.current_thread() is not threading.main_thread():
        return
    if _owner is None:
        sys.unraisablehook = _again_or(sys.unraisablehook)
    _owner = os.getpid()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _answer)


def _again_or(
    hook: Callable[[sys.UnraisableHookArgs], object],
) -> Callable[[sys.UnraisableHookArgs], object]:
    """Return what raises a dropped ``KeyboardInterrupt`` again, once the finaliser has ended, and else is the hook."""

    def heard(dropped: sys.UnraisableHookArgs) -> object:
        if _raised_by is None or not isinstance(dropped.exc_value, KeyboardInterrupt):
            return hook(dropped)
        threading.Timer(_SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), _raised_by)).start()
        return None

    return heard


@contextmanager
def stoppable(folder: Path, notify: Callable[[str], None]) -> Iterator[Path]:
    """Let the first signal be a request that whatever trains below looks for, and give the file that it is in.

    A request of an earlier session is removed first, and this one's at the end. Outside of this a signal raises
    ``KeyboardInterrupt`` at once: there is nothing to keep. Where Python's own answers stand, as in a script or a
    notebook, they are back at the end. Every process that trains must reach the folder. ``notify`` gets a line in a
    thread of its own.
    """
    global _place
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / STOP_FILE
    file.unlink(missing_ok=True)
    outer, _place = _place, (own := _Place(file, notify))
    try:
        with _in_place_of_pythons():
            yield file
    finally:
        _place = outer
        own.close()
        file.unlink(missing_ok=True)


@contextmanager
def _in_place_of_pythons() -> Iterator[None]:
    """Answer the signals that Python itself would answer, until the body ends."""
    global _owner
    is_main = threading.current_thread() is threading.main_thread()
    pythons = (
        dict.fromkeys(ENDING, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler} if is_main else {}
    )
    taken = {number: answer for number, answer in pythons.items() if signal.getsignal(number) == answer}
    if taken:
        _owner = os.getpid()
    for number in taken:
        signal.signal(number, _answer)
    try:
        yield
    finally:
        for number, answer in taken.items():
            signal.signal(number, answer)


def _answer(number: int, frame: object) -> None:
    global _raised_by
    if os.getpid() != _owner:
        # A process that was forked, such as one that loads batches: Ctrl-C reaches all processes of a terminal,
        # but only the first one decides. SIGTERM is how that one ends the others.
        if number == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        return
    # A terminal that closes sends SIGHUP, and its shell another one: no second wish to end.
    if _place is None or not (_place.ask() or number == signal.SIGHUP):
        _raised_by = number
        raise KeyboardInterrupt
