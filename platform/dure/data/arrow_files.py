"""Memory-mapped Arrow files with facts beside them: the one way in which data is cached.

An entry is two files: ``<key>.arrow`` with the rows, and ``<key>.json`` with its size, its number of rows and
the owner's facts. The second is written last and makes the entry valid. Both are written beside and renamed,
and what they hold follows from the key, so processes that write one entry at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.files import parse_json, write_json, written_beside

if TYPE_CHECKING:
    import datasets
    import pyarrow

BATCH_ROWS = 1000
"""Rows in memory at a time."""


def key_of(*parts: Any) -> str:
    """Return a SHA-256 over JSON values; mappings count as equal whatever their order."""
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def load_entry(path: Path) -> tuple[datasets.Dataset, dict[str, Any]] | None:
    """Open an entry memory-mapped, or return None when it is missing or broken."""
    import datasets
    import pyarrow

    try:
        entry = parse_json(path.with_suffix(".json").read_bytes())
        if path.stat().st_size != entry["num_bytes"]:
            return None
        dataset = datasets.Dataset.from_file(str(path))
        return (dataset, entry["facts"]) if len(dataset) == entry["num_rows"] else None
    except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException):
        return None


@contextmanager
def written_entry(path: Path, facts: Callable[[], dict[str, Any]]) -> Iterator[Callable[[Any], None]]:
    """Give a function that appends a ``pyarrow.RecordBatch`` to an entry; all must have one schema.

    ``facts`` is called after the last batch. When the body raises, nothing is left behind.
    """
    import pyarrow

    writer: Any = None
    num_rows = 0
    with written_beside(path) as beside:
        with pyarrow.OSFile(str(beside), "wb") as file:

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
        num_bytes = beside.stat().st_size
    write_json(path.with_suffix(".json"), {"num_bytes": num_bytes, "num_rows": num_rows, "facts": facts()})
