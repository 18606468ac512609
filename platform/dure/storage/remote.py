"""Files in storage that outlives machines: S3 and what speaks like it, Google Cloud Storage, a mounted folder."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote, urlsplit

from dure.errors import RunError, UserError, said
from dure.files import written_beside

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 8 * 1024**2
_OF_URLS = "%:/?#[]@!$&'()*+,;="
"""What means something in a URL; other signs that somebody put there as they are have to be written by their numbers."""
_WAITS_SECONDS = (1.0, 4.0)
"""Before the second and the third attempt; the client of S3 makes three of its own in each."""


_Value = TypeVar("_Value")


class StorageError(RunError):
    """Storage did not answer, or refused, after every attempt."""


def shown(url: str) -> str:
    """Return a URL as it may be printed: without a user, a password and options, names as folders have them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{unquote(parts.path)}"


def joined(url: str, name: str) -> str:
    """Return the URL of what lies at a relative path below another URL; options stay where they belong.

    Of a name only what a URL takes as it is stays so: ``#`` and ``?`` would end the path, and Arrow takes no ``가``.
    """
    before, mark, options = url.partition("?")
    return f"{before.rstrip('/')}/{quote(name.strip('/'))}{mark}{options}"


class Storage:
    """The files below a URL.

    Keys and secrets come from the environment, as the tools of each provider read them, and so do ``AWS_ENDPOINT_URL``
    and ``AWS_REGION``. A server of one's own (MinIO …) may also stand in the URL, as
    ``?endpoint_override=HOST:PORT&scheme=http``.
    Every call is attempted three times.

    Args:
        url: Where the files are.
        waits: Seconds before each further attempt.

    Raises:
        UserError: The URL is of no kind that is known here.
    """

    def __init__(self, url: str, *, waits: Sequence[float] = _WAITS_SECONDS) -> None:
        self.shown = shown(url)
        self._url = url
        self._waits = waits
        self._opened: tuple[FileSystem, str] | None = None

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file by its path below the URL; nothing where there is nothing.

        Raises:
            StorageError: It cannot be listed.
        """
        from pyarrow.fs import FileSelector, FileType

        def look(files: FileSystem, root: str) -> dict[str, int]:
            found = files.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
            return {
                each.path[len(root) :].lstrip("/"): int(each.size)
                for each in found
                if each.type == FileType.File
            }

        return self._attempted("list", look)

    def has_bucket(self) -> bool:
        """Return whether the bucket exists; a folder of this machine is made when it is first written to.

        Raises:
            StorageError: That cannot be found out.
        """
        from pyarrow.fs import FileType

        def look(files: FileSystem, root: str) -> bool:
            bucket = root.partition("/")[0]
            return files.type_name == "local" or bool(files.get_file_info(bucket).type != FileType.NotFound)

        return self._attempted("reach", look)

    def upload(self, source: Path, name: str) -> int:
        """Write a file, whole or not at all, and return how many bytes it had.

        Raises:
            FileNotFoundError: The file is gone here.
            StorageError: It cannot be written.
        """
        return self._attempted(
            f"write {name} to", lambda files, root: _upload(files, source, f"{root}/{name}")
        )

    def download(self, name: str, target: Path) -> None:
        """Bring a file, whole or not at all.

        Raises:
            FileNotFoundError: There is none.
            StorageError: It cannot be read.
        """

        def download(files: FileSystem, root: str) -> None:
            with (
                written_beside(target) as beside,
                files.open_input_stream(f"{root}/{name}") as stream,
                beside.open("wb") as file,
            ):
                shutil.copyfileobj(stream, file, _CHUNK_BYTES)

        self._attempted(f"read {name} from", download)

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is as good as removed.

        Raises:
            StorageError: It cannot be removed.
        """

        def remove(files: FileSystem, root: str) -> None:
            try:
                files.delete_file(f"{root}/{name}")
            except FileNotFoundError:
                logger.debug("%s was gone already", name)

        self._attempted(f"delete {name} in", remove)

    def _attempted(self, what: str, action: Callable[[FileSystem, str], _Value]) -> _Value:
        waits = list(self._waits)
        while True:
            try:
                files, root = self._open()
                return action(files, root)
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:  # Arrow's, and of names that are no text
                if not waits or isinstance(error, ValueError):
                    raise StorageError(f"cannot {what} {self.shown}: {_said(error)}") from None
                logger.info("cannot %s %s: %s; again in %g s", what, self.shown, _said(error), waits[0])
                time.sleep(waits.pop(0))

    def _open(self) -> tuple[FileSystem, str]:
        if self._opened is None:
            from pyarrow.fs import FileSystem

            try:
                files, root = FileSystem.from_uri(quote(self._url, safe=_OF_URLS))
            except ValueError as error:
                # Arrow's words may hold the URL with all that stands in it.
                raise UserError(
                    f"'{self.shown}' is no URL that storage is reached by ({type(error).__name__})",
                    where="storage.url",
                ) from None
            self._opened = files, root.rstrip("/")
        return self._opened


def _upload(files: FileSystem, source: Path, target: str) -> int:
    """Copy a file and check that as many bytes arrived as were sent."""
    has_names_at_once = files.type_name == "local"
    place = f"{target}.part" if has_names_at_once else target
    if has_names_at_once:
        files.create_dir(target.rpartition("/")[0], recursive=True)
    sent = 0
    with source.open("rb") as file, files.open_output_stream(place) as stream:
        while chunk := file.read(_CHUNK_BYTES):
            stream.write(chunk)
            sent += len(chunk)
    if has_names_at_once:
        with Path(place).open("rb") as written:
            os.fsync(written.fileno())
        files.move(place, target)
    arrived = files.get_file_info(target).size
    if arrived != sent:
        raise OSError(f"{sent:,} bytes were sent and {arrived} arrived")
    return sent


def _said(error: BaseException) -> str:
    """Return what an error says in one line, without the identifiers of a request and without any URL."""
    text = said(error)
    text = re.sub(r"\(Request ID: [^)]*\)", "", text)
    return re.sub(r"\b\w+://\S*@\S*", "(a URL)", text).strip()[:300]


def require_storage(url: str, *, waits: Sequence[float] = _WAITS_SECONDS) -> None:
    """Check that the storage of a URL answers, so that a mistake shows before hours of work.

    Raises:
        UserError: It does not answer, there is no such bucket, or it may not be read.
    """
    storage = Storage(url, waits=waits)
    try:
        if storage.has_bucket():
            return
        problem = f"there is no bucket of {storage.shown}"
    except StorageError as error:
        problem = str(error)
    raise UserError(
        problem,
        where="storage.url",
        hint="check bucket, network and credentials (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL …), or leave storage.url out",
    )
