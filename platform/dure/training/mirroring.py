"""Mirroring a run while it goes on: in a thread of its own, so that training never waits for a network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dure.errors import RunError
from dure.storage import StorageError
from dure.training.checkpoints import last_checkpoint
from dure.training.events import RunListener
from dure.training.mirror import Mirror

logger = logging.getLogger(__name__)


class Mirroring(RunListener):
    """Pushes after every checkpoint. When storage does not answer, that is told once, and the next push catches up.

    Args:
        mirror: The run's folder and its copy.
        tell: Gets one-line messages for the user.
    """

    def __init__(self, mirror: Mirror, tell: Callable[[str], None]) -> None:
        self._mirror = mirror
        self._tell = tell
        self._is_behind = False
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="dure-mirror", daemon=True)
        self._thread.start()

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint is whole: push it, or if a push goes on, after that."""
        self._wanted.set()

    def close(self) -> None:
        """Push what is left; the folder is complete by now."""
        self._ended = True
        self._wanted.set()
        self._thread.join()
        try:
            self._mirror.push()
        except (StorageError, OSError) as error:
            self._tell(
                f"the end of this run is NOT in {self._mirror.storage.shown} ({error}); nothing is lost: it is whole "
                f"in {self._mirror.folder}, and the same command with --resume sends what is missing"
            )

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            if self._ended:
                return
            self._wanted.clear()
            try:
                self._mirror.push()
            except (StorageError, OSError) as error:
                if not self._is_behind:
                    self._tell(f"{error}; the run goes on, and the next checkpoint sends what is missing")
                self._is_behind = True
            else:
                if self._is_behind:
                    self._tell(f"{self._mirror.storage.shown} answers again and has everything")
                self._is_behind = False


@contextmanager
def mirrored(
    mirror: Mirror, checkpoints: Path, *, resume: bool, tell: Callable[[str], None]
) -> Iterator[Mirroring]:
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
        tell(f"{error}; the run goes on with what is here, and the next checkpoint sends what is missing")
    listener = Mirroring(mirror, tell)
    try:
        yield listener
    finally:
        listener.close()
