"""Memory-mapped Arrow files with facts beside them: the one way in which data is cached.

An entry is two files: ``<key>-<hash>.arrow`` with the rows, and ``<key>.json`` with the name, the size and the hash of
the first, its number of rows and the owner's facts. The second is written last and makes the entry valid. Both are
written beside and renamed, and a file of rows never changes under its name, so processes that write one entry at once
do not disturb each other. What was written is compared with its hash before it is first used in a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.errors import UserError
from dure.files import failures_named, flush, hash_of, parse_json, write_json

if TYPE_CHECKING:
    import datasets
    import pyarrow

BATCH_ROWS = 1000
"""Rows in memory at a time."""
KINDS = ("tables", "encoded", "traces")
"""Folders of a cache that hold entries."""
MAX_GB = "DURE_CACHE_MAX_GB"
"""Environment variable: gigabytes (10⁹ bytes) that the entries of a cache may take."""
_MAX_GB = 50.0
_OLD_SECONDS = 90 * 86_400.0
_UNUSED_SECONDS = 7 * 86_400.0
_IN_USE_SECONDS = 3600.0
"""An entry that was used so recently may be about to be opened by a worker."""
_ATTEMPTS = 3
_verified: dict[str, tuple[int, int]] = {}
"""Files that this process has compared with their hash, with the size and the time that they had then."""


def key_of(*parts: Any) -> str:
    """Return a SHA-256 over JSON values; mappings count as equal whatever their order."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def load_entry(path: Path) -> tuple[datasets.Dataset, dict[str, Any]] | None:
    """Open an entry memory-mapped, or return None when it is missing, or is not what was written.

    ``path`` is ``<folder>/<key>.arrow``.
    """
    import datasets
    import pyarrow

    record = path.with_suffix(".json")
    for _ in range(_ATTEMPTS):
        try:
            before = record.read_bytes()
            entry = parse_json(before)
            if key_of(entry["content"]) != entry["seal"]:
                return None
            content = entry["content"]
            file = path.with_name(content["file"])
            if _is_whole(file, content):
                dataset = datasets.Dataset.from_file(str(file))
                if len(dataset) == content["num_rows"]:
                    os.utime(record)  # when it was last used, by which old entries go
                    return dataset, content["facts"]
        except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException):
            pass  # it is as good as missing, unless another process is rewriting it
        with contextlib.suppress(OSError):
            if record.read_bytes() != before:
                continue
        return None
    return None


def _is_whole(file: Path, content: dict[str, Any]) -> bool:
    """Return whether a file is what was written, after a look at all of it once in every process."""
    facts = file.stat()
    now = (facts.st_size, facts.st_mtime_ns)
    if facts.st_size != content["num_bytes"]:
        return False
    if _verified.get(str(file)) != now:
        if hash_of(file) != content["hash"]:
            return False
        _verified[str(file)] = now
    return True


@contextmanager
def written_entry(path: Path, facts: Callable[[], dict[str, Any]]) -> Iterator[Callable[[Any], None]]:
    """Give a function that appends a ``pyarrow.RecordBatch`` to an entry; all must have one schema.

    ``facts`` is called after the last batch. When the body raises, nothing is left behind. Entries that nobody used
    for long, and the longest unused ones above ``DURE_CACHE_MAX_GB``, go afterwards.
    """
    import pyarrow

    writer: Any = None
    num_rows = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part")
    try:
        with failures_named(path.parent, beside), pyarrow.OSFile(str(beside), "wb") as file:

            def append(batch: pyarrow.RecordBatch) -> None:
                nonlocal writer, num_rows
                if writer is None:
                    writer = pyarrow.ipc.new_stream(file, batch.schema)
                writer.write_batch(batch)
                num_rows += batch.num_rows

            try:
                yield append
            finally:
                if writer is not None:
                    writer.close()
        flush(beside)
        digest = hash_of(beside)
        content: dict[str, Any] = {
            "file": f"{path.stem}-{digest[:16]}.arrow",
            "num_bytes": beside.stat().st_size,
            "num_rows": num_rows,
            "hash": digest,
            "facts": facts(),
        }
        beside.replace(path.with_name(content["file"]))
    finally:
        beside.unlink(missing_ok=True)
    write_json(path.with_suffix(".json"), {"content": content, "seal": key_of(content)})
    evict(path.parent.parent, max_bytes())


def max_bytes() -> float:
    """Return how much the entries of a cache may take.

    Raises:
        UserError: ``DURE_CACHE_MAX_GB`` is no number above 0.
    """
    given = os.environ.get(MAX_GB, "").strip()
    try:
        gigabytes = float(given) if given else _MAX_GB
    except ValueError:
        gigabytes = 0.0
    if not gigabytes > 0:
        raise UserError(
            f"'{given}' is no size", where=f"environment variable {MAX_GB}", expected="gigabytes, such as 20"
        )
    return gigabytes * 1e9


@dataclass(frozen=True)
class Kept:
    """An entry on the disk, or a file that belongs to none."""

    used: float
    """When it was last used."""
    written: float
    """When its rows were written."""
    num_bytes: int
    """What it takes."""
    files: tuple[Path, ...]
    """Its files, the record first."""
    is_entry: bool
    """Whether there is a record."""
    reason: str = ""
    """Why it may go, when it may."""


def spare_entries(cache: Path) -> list[Kept]:
    """Return the entries of a cache that may go: never used again after they were written, or above its budget.

    Raises:
        UserError: ``DURE_CACHE_MAX_GB`` is no number above 0.
    """
    now, limit = time.time(), max_bytes()
    kept = sorted(_kept(cache), key=lambda each: each.used)
    total = sum(each.num_bytes for each in kept)
    found = []
    for each in kept:
        idle = now - each.used
        if not each.is_entry or idle <= _IN_USE_SECONDS:
            continue
        if total > limit:
            reason = (
                f"the cache takes more than {limit / 1e9:g} GB ({MAX_GB}), and this was not used for longest"
            )
        elif idle > _UNUSED_SECONDS and each.used - each.written <= _IN_USE_SECONDS:
            reason = f"never used again since it was written {idle / 86_400:.0f} days ago"
        else:
            continue
        found.append(replace(each, reason=reason))
        total -= each.num_bytes
    return found


def forget(kept: Kept) -> None:
    """Remove an entry; rows that another process has open stay readable there."""
    for file in kept.files:
        file.unlink(missing_ok=True)


def evict(cache: Path, limit: float) -> None:
    """Remove from a cache what was not used for 90 days, and above a limit what was not used for longest.

    ``limit`` is in bytes; what was used within the last hour stays even above it.
    """
    now = time.time()
    kept = sorted(_kept(cache), key=lambda each: each.used)
    total = sum(each.num_bytes for each in kept)
    for each in kept:
        age = now - each.used
        if age > _OLD_SECONDS or (total > limit and age > _IN_USE_SECONDS):
            forget(each)
            total -= each.num_bytes


def _kept(cache: Path) -> Iterator[Kept]:
    for kind in KINDS:
        named: set[Path] = set()
        files = [path for path in (cache / kind).glob("*") if path.is_file()]
        for record in files:
            if record.suffix != ".json":
                continue
            rows = [
                path for path in files if path.suffix == ".arrow" and path.stem.startswith(f"{record.stem}-")
            ]
            named.update(rows, [record])
            with contextlib.suppress(OSError):  # another process may remove the same
                size = sum(path.stat().st_size for path in (record, *rows))
                # The record goes first: without it there is no entry.
                used = record.stat().st_mtime
                written = max((path.stat().st_mtime for path in rows), default=used)
                yield Kept(used, written, size, (record, *rows), is_entry=True)
        for stray in set(files) - named:
            with contextlib.suppress(OSError):
                facts = stray.stat()
                yield Kept(facts.st_mtime, facts.st_mtime, facts.st_size, (stray,), is_entry=False)
