"""Bytes to lines of text: which encoding a table is in, and where a byte breaks it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dure.errors import UserError, shell_word

_CHUNK = 1 << 16
_HEAD_BYTES = 4096
_PLAIN = re.compile(r"[\t\r\n -~ㄱ-ㆎ가-힣]")
_LEAST_PLAIN = 0.8
_LEAST_ZEROS = 0.02
"""Of the bytes of a table in UTF-16; every separator, digit and end of a line brings one."""
_HANGUL = re.compile("[가-힣]")
_UNPACK = "unpack it first"
_OTHER_KINDS = {
    b"\x1f\x8b": ("packed by gzip", _UNPACK),
    b"PK\x03\x04": ("a zip archive or a workbook such as .xlsx", "unpack it, or name a workbook .xlsx"),
    b"BZh": ("packed by bzip2", _UNPACK),
    b"\xfd7zXZ\x00": ("packed by xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", _UNPACK),
    b"PAR1": ("a Parquet table", "name it .parquet"),
    b"\xd0\xcf\x11\xe0": ("an old workbook (.xls) or document", "save it as .xlsx or .csv"),
    b"version https://git-lfs": ("a pointer of Git LFS", "git lfs pull fetches what it stands for"),
    b"%PDF-": ("a PDF", "save its table as .csv"),
    b"SQLite f": ("a database of SQLite", "write a table of it as .csv"),
    b"<!DOCTYPE html": ("a page of the web", "download the file that it leads to"),
    b"<html": ("a page of the web", "save its table as .csv"),
}
"""What files begin with that are often taken for a text table, what they are, and what to do."""
_LONGEST_LINE = 1 << 26
"""Characters of a line; a file of another kind may hold no line end at all."""
_EXPECTED = "UTF-8 (with or without BOM) or CP949, or the name of another encoding in data.encoding"


def known_encoding(name: str) -> str:
    """Return the codec for an encoding that the user named; a BOM before UTF-8 is taken off.

    Raises:
        UserError: Python knows no such encoding.
    """
    try:
        codec = codecs.lookup(name).name
        "".encode(codec)  # Codecs such as base64 are found too, but make no text.
    except (LookupError, ValueError):
        raise UserError(
            f"there is no encoding '{name}'", where="data.encoding", expected="such as utf-8, cp949 or utf-16"
        ) from None
    return "utf-8-sig" if codec == "utf-8" else codec


def recognise_encoding(path: Path) -> str:
    """Return ``utf-8-sig`` or ``cp949``, whichever decodes the whole file; reads it in small pieces.

    A UTF-8 file with a broken byte can be CP949 by chance, and would come out as wrong Hanja. So CP949 is
    accepted only when reading the file as UTF-8 breaks more often than it gives a Hangul syllable.

    Raises:
        UserError: Neither fits; names the line and the byte.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for mark, (kind, hint) in _OTHER_KINDS.items():
        if head.startswith(mark):
            problem = f"the file is {kind}, whatever its suffix says"
            raise UserError(problem, where=str(path), expected="text", hint=hint)
    if wide := _wide_encoding(head):
        raise UserError(
            f"the file is {wide.upper()}", where=str(path), expected=_EXPECTED, hint=f"data.encoding={wide}"
        )
    unlike_utf8 = _first_unreadable(path, "utf-8-sig")
    if unlike_utf8 is None:
        return "utf-8-sig"
    if _is_damaged_utf8(path):
        raise unlike_utf8[1]
    unlike_cp949 = _first_unreadable(path, "cp949")
    if unlike_cp949 is None:
        return "cp949"
    # The encoding that reads further is likelier the file's own.
    raise max(unlike_utf8, unlike_cp949, key=lambda found: found[0])[1]


def _wide_encoding(head: bytes) -> str | None:
    """Return the encoding of several bytes a letter that a file begins in, by its mark or by what it would read."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.count(0) < max(1, _LEAST_ZEROS * len(head)):
        return None
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        text = head.decode(name, "replace")
        if text and len(_PLAIN.findall(text)) >= _LEAST_PLAIN * len(text):
            return name
    return None


def _first_unreadable(path: Path, encoding: str) -> tuple[int, UserError] | None:
    """Return the place of the first byte that ``encoding`` cannot read, and the error for it."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
    except LookupError:  # a codec that reads whole texts only
        return None
    line, num_read = 1, 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            num_read += len(chunk)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
                place = num_read - len(error.object) + error.start
                return place, UserError(
                    f"byte 0x{byte:02x} cannot be read as {name}",
                    where=f"{path}, line {line}",
                    expected=_EXPECTED,
                    hint="correct that line, or name the file's encoding: data.encoding=…; files of two encodings that were put "
                    "together are read one by one, as in data.train=[a.csv, b.csv]",
                )
            except UnicodeError as error:  # of codecs such as idna, which name no byte
                return num_read, UserError(
                    f"it cannot be read as {encoding.upper()} ({error})",
                    where=f"{path}, line {line}",
                    expected=_EXPECTED,
                )
            if not chunk:
                return None


def text_lines(path: Path, encoding: str) -> Iterator[str]:
    """Give the lines of a text file with their line ends as they are, one at a time.

    Raises:
        UserError: A byte cannot be read, or is NUL; names the line.
    """
    try:
        with path.open(encoding=encoding, newline="") as file:
            for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), ""), start=1):
                if len(line) == _LONGEST_LINE:
                    raise UserError(
                        f"the line is longer than {_LONGEST_LINE:,} characters",
                        where=f"{path}, line {number}",
                        expected="a text file",
                    )
                if "\0" in line:
                    raise UserError(
                        "a NUL byte (0x00) stands in the text",
                        where=f"{path}, line {number}",
                        expected="a text file",
                        hint=f"the file is damaged; tr -d '\\000' < {shell_word(str(path))} > NEW{path.suffix} leaves them out",
                    )
                yield line
    except UnicodeError as error:
        # The file object decodes ahead of the lines that it gives: the place is found in a second pass.
        found = _first_unreadable(path, encoding)
        raise (
            found[1] if found else UserError(f"cannot be read as {encoding} ({error})", where=str(path))
        ) from None


def _is_damaged_utf8(path: Path) -> bool:
    """Return whether the file is UTF-8 but for a few bytes, going by its Hangul."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    hangul = broken = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            text = decoder.decode(chunk)
            hangul += len(_HANGUL.findall(text))
            broken += text.count("\ufffd")
    return hangul > broken
