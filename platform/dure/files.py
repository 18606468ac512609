"""Writing files so that a kill at any moment leaves either the old content or the new, never a part."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dure.errors import UserError


def make_folder(path: Path, *, where: str) -> None:
    """Make a folder, and those above it, unless it is there; ``where`` says who asked for it.

    Raises:
        UserError: It cannot be made, or files cannot be written into it.
    """
    expected = "a folder that files can be written to"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"folder '{path}' cannot be made ({error.strerror})", where=where, expected=expected
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"folder '{path}' cannot be written to", where=where, expected=expected)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write a file or folder to, then rename it into place.

    An existing folder at ``path`` is replaced; when the body raises, ``path`` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        yield beside
        if path.is_dir() and beside.is_dir():
            old = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.old"
            path.rename(old)
            beside.rename(path)
            shutil.rmtree(old)
        else:
            beside.replace(path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all, and flushed to the disk."""
    with written_beside(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; Korean stays readable."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def append_json_line(path: Path, value: Any) -> None:
    """Append one record to a JSON-lines file; a torn last line is what a reader skips."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def read_json_lines(path: Path) -> list[Any]:
    """Read the records of a JSON-lines file; a last line torn by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
    return records
