"""Mirroring a run or study while it goes on: in a thread of its own, so that nothing waits for a network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dure.errors import RunError
from dure.storage import StorageError
from dure.training.checkpoints import last_checkpoint
from dure.training.events import RunListener
from dure.training.mirror import Mirror, shared_folder

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Mirroring(RunListener):
    """Pushes after every checkpoint. When storage does not answer, that is told once, and the next push catches up.

    Args:
        mirror: The folder and its copy.
        tell: Gets one-line messages for the user.
        apart: Returns the folders in it that somebody else pushes just now.
    """

    def __init__(self, mirror: Mirror, tell: Tell, *, apart: Callable[[], Collection[str]] = tuple) -> None:
        self._mirror = mirror
        self._tell = tell
        self._apart = apart
        self._is_behind = False
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="dure-mirror", daemon=True)
        self._thread.start()

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint is whole: push it."""
        self.push_soon()

    def push_soon(self) -> None:
        """Push what there is, or if a push goes on, after that."""
        self._wanted.set()

    def close(self) -> None:
        """Push what is left; the folder is complete by now."""
        self._ended = True
        self._wanted.set()
        self._thread.join()
        push_end(self._mirror, self._tell)

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            if self._ended:
                return
            self._wanted.clear()
            try:
                self._mirror.push(apart=self._apart())
            except (StorageError, OSError) as error:
                if not self._is_behind:
                    self._tell(f"{error}; the run goes on, and the next push sends what is missing")
                self._is_behind = True
            else:
                if self._is_behind:
                    self._tell(f"{self._mirror.storage.shown} answers again and has everything")
                self._is_behind = False


def push_end(mirror: Mirror, tell: Tell) -> None:
    """Push a folder that is complete, and tell when that is not possible."""
    try:
        mirror.push()
    except (StorageError, OSError) as error:
        tell(
            f"the end of this run is NOT in {mirror.storage.shown} ({error}); nothing is lost: it is whole "
            f"in {mirror.folder}, and the same command with --resume sends what is missing"
        )


def kept_in_storage(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a function that fills the folder ``path`` on the machine ``profile`` leave all of it in storage, if there is one.

    What has to be told, a failure above all, goes to its argument ``tell`` or ``listener``.
    """

    @wraps(function)
    def kept(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        given: dict[str, Any] = dict(kwargs)
        path = given["path"].resolve()
        shared = shared_folder(given["profile"], path)
        if shared is None:
            return function(*args, **kwargs)
        tell: Tell = given.get("tell") or getattr(given.get("listener"), "told", None) or logger.warning
        mirror = shared.mirror(path)
        # What is in here, the sweep of a unified training for one, finds its place by this.
        push_start(mirror, tell)
        try:
            return function(*args, **kwargs)
        finally:
            push_end(mirror, tell)

    return kept


def push_start(mirror: Mirror, tell: Tell) -> None:
    """Push a folder before something goes on in it, so that what was removed here does not come back from storage."""
    try:
        mirror.push()
    except StorageError as error:
        tell(f"{error}; the work goes on, and the next push sends what is missing")


@contextmanager
def mirrored(mirror: Mirror, checkpoints: Path, *, resume: bool, tell: Tell) -> Iterator[Mirroring]:
    """Give the listener that mirrors a run; before, bring what another machine did of it, and after, send the rest.

    Args:
        mirror: The run's folder and its copy.
        checkpoints: Where the run's checkpoints are.
        resume: Whether the run goes on with what there is.
        tell: Gets one-line messages for the user.

    Raises:
        RunError: Storage does not answer, and there is no checkpoint here to go on from: it would be from the
            beginning, whatever storage holds.
    """
    try:
        if resume:
            step = mirror.pull(tell)
            if step is not None:
                tell(f"checkpoint-{step} comes from {mirror.storage.shown}")
        mirror.forget_result()
    except StorageError as error:
        if resume and last_checkpoint(checkpoints) is None:
            raise RunError(f"{error}, so it is not known what to resume") from None
        tell(f"{error}; the run goes on with what is here, and the next push sends what is missing")
    listener = Mirroring(mirror, tell)
    try:
        yield listener
    finally:
        listener.close()
