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


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the records of a JSON-lines file, which need not be there; a last line torn by a kill is left out.

    Raises:
        UserError: A line before the last is no JSON object; names file and line.
    """
    if not path.exists():
        return []
    # Cut as bytes: a kill may tear a character, and JSON text may hold what else counts as the end of a line.
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_json_object(line))
        except ValueError as error:
            if number != len(lines):
                raise UserError(
                    f"this is no record ({error})",
                    where=f"{path}, line {number}",
                    expected="one JSON object a line",
                    hint="remove that line; the others are of use without it",
                ) from None
    return records


def read_json(path: Path, *, what: str, hint: str | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        what: What it should be, in words.
        hint: What to do when it is not.

    Raises:
        UserError: It is no JSON object.
    """
    try:
        return _json_object(path.read_bytes())
    except ValueError as error:
        raise UserError(f"this is no {what} ({error})", where=str(path), hint=hint) from None


def _json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("its JSON is no object")
    return value
