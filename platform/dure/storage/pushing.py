"""Mirroring a run or study while it goes on: in a thread of its own, so that nothing waits for a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from dure.config.schema import Profile
from dure.errors import RunError
from dure.events import Notify, RunListener
from dure.runs.checkpoints import last_checkpoint
from dure.storage.mirror import Mirror, SharedFolder, shared_folder
from dure.storage.remote import StorageError


class Mirroring(RunListener):
    """Pushes after every checkpoint. When storage does not answer, that is reported once, and the next push catches up.

    ``apart`` returns the folders in it that somebody else pushes just now.
    """

    def __init__(
        self, mirror: Mirror, notify: Notify, *, apart: Callable[[], Collection[str]] = tuple
    ) -> None:
        self._mirror = mirror
        self._tell = notify
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


def push_end(mirror: Mirror, notify: Notify) -> None:
    """Push a folder that is complete, and report when that is not possible."""
    try:
        mirror.push()
    except (StorageError, OSError) as error:
        notify(
            f"{mirror.storage.shown} does NOT have the last files of this run ({error}); nothing is lost: all are in "
            f"{mirror.folder}, and the same command with --resume sends what is missing"
        )


@contextmanager
def kept_in_storage(profile: Profile, path: Path, notify: Notify) -> Iterator[None]:
    """Leave all of the folder ``path``, which the body fills on the machine ``profile``, in storage, if there is one.

    What the user must know, a failure above all, goes to ``notify``.
    """
    shared = shared_folder(profile, path)
    if shared is None:
        yield
        return
    mirror = shared.mirror(path)
    # What is in here, the sweep of a unified training for one, finds its place by this.
    push_start(mirror, notify)
    try:
        yield
    finally:
        push_end(mirror, notify)


def push_start(mirror: Mirror, notify: Notify) -> None:
    """Push a folder before something goes on in it, so that what was removed here does not come back from storage."""
    try:
        mirror.push()
    except StorageError as error:
        notify(f"{error}; the work goes on, and the next push sends what is missing")


@contextmanager
def mirrored(mirror: Mirror, checkpoints: Path, *, resume: bool, notify: Notify) -> Iterator[Mirroring]:
    """Give the listener that mirrors a run; before, bring what another machine did of it, and after, send the rest.

    Raises:
        RunError: Storage does not answer, and there is no checkpoint here to go on from: it would be from the
            beginning, whatever storage holds.
    """
    try:
        if resume:
            step = mirror.pull(notify)
            if step is not None:
                notify(f"checkpoint-{step} comes from {mirror.storage.shown}")
        mirror.forget_result()
    except StorageError as error:
        if resume and last_checkpoint(checkpoints) is None:
            raise RunError(f"{error}, so it is not known what to resume") from None
        notify(f"{error}; the run goes on with what is here, and the next push sends what is missing")
    listener = Mirroring(mirror, notify)
    try:
        yield listener
    finally:
        listener.close()


class StudyMirror:
    """The driver's side of a mirrored study: pushes the whole folder but for trials that run, which push their own.

    Nothing here ends a study: what storage does not take or give is reported, and is complete in the folders. The
    folder is that of ``shared``, or lies in it; ``running`` returns the folders of trials that run, as they lie there.
    """

    def __init__(
        self, shared: SharedFolder, path: Path, running: Callable[[], Collection[str]], notify: Notify
    ) -> None:
        self._shared = shared
        self._path = path
        self._running = running
        self._tell = notify
        self._pushing: Mirroring | None = None

    def open(self) -> None:
        """Push what there is before trials run; from now on pushes are made in a thread."""
        push_start(self._shared.mirror(self._path), self._tell)
        self._pushing = Mirroring(self._shared.mirror(self._path), self._tell, apart=self._running)

    def push(self) -> None:
        """Push soon; where the study's folder is that of a trial which runs, that one pushes it."""
        if self._pushing is not None and "." not in self._running():
            self._pushing.push_soon()

    def close(self) -> None:
        """Push what is left; no trial runs any more."""
        if self._pushing is not None:
            self._pushing.close()
            self._pushing = None

    def pull(self, trial: Path) -> None:
        """Bring what a trial left on another machine.

        Raises:
            RunError: It cannot be written here.
        """
        try:
            self._shared.mirror(trial).pull(self._tell)
        except StorageError as error:
            self._tell(f"{error}; the study goes on")
        except OSError as error:
            raise RunError(f"the folder of the study cannot be mirrored: {error}") from error
