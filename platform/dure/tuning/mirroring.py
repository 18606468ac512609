"""What the driver of a study exchanges with storage: its own files, and the records of trials on other machines."""

from __future__ import annotations

from collections.abc import Callable, Collection

from dure.errors import RunError
from dure.storage import StorageError
from dure.training.mirror import Mirror, SharedFolder
from dure.training.records import RunFolder


class StudyMirror:
    """The driver's side of a mirrored study; trials mirror their own folders.

    Nothing here ends a study: what storage does not take or give is told, and is complete in the folders.

    Args:
        shared: The folder of the study and its place in storage.
        trials: Folders of the trials within it.
        tell: Gets one-line messages for the user.
    """

    def __init__(self, shared: SharedFolder, trials: Collection[str], tell: Callable[[str], None]) -> None:
        self._shared = shared
        self._tell = tell
        own = shared.mirror(shared.folder)
        self._own = Mirror(own.storage, shared.folder, apart=trials)

    def push(self) -> None:
        """Send the study's own files."""
        self._attempt(self._own.push)

    def bring_records(self, folder: RunFolder) -> None:
        """Bring the records of a trial that left none here, since it ran on another machine."""
        self._attempt(self._shared.mirror(folder.path).pull_records)

    def send_result(self, folder: RunFolder) -> None:
        """Send a result that only the driver knows."""
        mirror = self._shared.mirror(folder.path)
        self._attempt(lambda: mirror.storage.upload(folder.result, folder.result.name))

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except StorageError as error:
            self._tell(f"{error}; the study goes on")
        except OSError as error:
            raise RunError(f"the folder of the study cannot be mirrored: {error}") from error
