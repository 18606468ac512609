"""What the driver of a study exchanges with storage, without ever letting trials wait for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from dure.errors import RunError
from dure.storage import StorageError
from dure.training.mirror import SharedFolder
from dure.training.mirroring import Mirroring, Tell, push_start


class StudyMirror:
    """The driver's side of a mirrored study: pushes the whole folder but for trials that run, which push their own.

    Nothing here ends a study: what storage does not take or give is told, and is complete in the folders.

    Args:
        shared: The folder of the study, or one that it lies in, and its place in storage.
        path: Folder of the study.
        running: Returns the folders of trials that run, as they lie in the study's.
        tell: Gets one-line messages for the user.
    """

    def __init__(
        self, shared: SharedFolder, path: Path, running: Callable[[], Collection[str]], tell: Tell
    ) -> None:
        self._shared = shared
        self._path = path
        self._running = running
        self._tell = tell
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

    def bring(self, trial: Path) -> None:
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

    def __getstate__(self) -> dict[str, Any]:
        """Leave all of it here: Tune pickles its callbacks, and a thread does not travel."""
        return {}
