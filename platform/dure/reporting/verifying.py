"""Recomputing a page: every mark from the record that it names, and everything else by the hash that it was sealed with.

A *seal* is the XXH3 of what stands in an element, words and tags with their attributes, beside its marks and beside
what is in sealed elements within it; the page as a whole is one, so that nothing stands outside. Whoever changes a
number and its seal alike is found by the record; the seal finds what was changed in words, pictures and looks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import xxhash

from dure.errors import UserError, counted
from dure.files import parse_json
from dure.reporting.marks import FORMATS, Computation, Sources, keys_of

_VOID = {"meta", "br", "hr", "img", "link", "input"}
_PICTURE = "figure"
_PAGE = "html"
_OF_PAGE = "beside the sections"
_HEAD_LETTERS = 65_536
SEAL = "data-seal"
"""Attribute that has the hash of what stands in an element beside marks."""
_HASH = re.compile(rf'(?<= {SEAL}=)"[^"]*"')
_VALUE = re.compile(r' value="[^"]*"')
RECORDS = "dure-records"
"""Name of the element that lists the records of a page."""


@dataclass(frozen=True)
class Change:
    """Something in a report that is not what its records say.

    Nothing is ``recorded`` where only a seal tells that words were changed.
    """

    where: str
    shown: str
    recorded: str


@dataclass(frozen=True)
class Verification:
    """What became of a report."""

    report: str
    records: int
    numbers: int
    changes: tuple[Change, ...]

    @property
    def is_true(self) -> bool:
        """Whether nothing was changed."""
        return not self.changes

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"state": "true" if self.is_true else "changed", **asdict(self)}


@dataclass
class _Element:
    """An element that is sealed, or a mark."""

    tag: str
    attributes: Mapping[str, str | None]
    where: str
    words: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Finds marks, seals and the list of records in a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.marks: list[_Element] = []
        self.seals: list[_Element] = []
        self.records = ""
        self._open: list[tuple[str, _Element | None]] = []
        self._heading: list[str] | None = None
        self._where = "the head"
        self._in_records = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._in_records = found.get("id") == RECORDS
        inner = self._innermost()
        if inner is not None:
            # That a mark stands here is sealed; what it shows, its record says.
            made = _VALUE if "data-at" in found else _HASH
            inner.words.append(made.sub("", self.get_starttag_text() or "", count=1))
        if tag in ("h1", "h2", "h3"):
            self._heading = []
        element = None
        if "data-at" in found:
            element = _Element(tag, found, self._where)
            self.marks.append(element)
        elif SEAL in found:
            element = _Element(tag, found, _OF_PAGE if tag == _PAGE else self._where)
            self.seals.append(element)
        if tag not in _VOID:
            self._open.append((tag, element))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("h1", "h2", "h3") and self._heading is not None:
            self._where = " ".join("".join(self._heading).split())
            self._heading = None
            for _, element in self._open:
                if element is not None and element.where == "the head":
                    element.where = self._where
            inner = self._innermost()
            if inner is not None and inner.where != _OF_PAGE:
                inner.where = self._where
        while self._open and self._open.pop()[0] != tag:
            continue
        self._in_records = False

    def handle_data(self, data: str) -> None:
        if self._in_records:
            self.records += data
        if self._heading is not None:
            self._heading.append(data)
        inner = self._innermost()
        if inner is not None:
            inner.words.append(data)

    def _innermost(self) -> _Element | None:
        return next((element for _, element in reversed(self._open) if element is not None), None)


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


def _seal(element: _Element) -> str:
    words = " ".join("".join(element.words).split())
    return xxhash.xxh3_64_hexdigest(words.encode("utf-8"))


def sealed(html: str) -> str:
    """Return a page with the seals of its elements, which have empty ones."""
    seals = iter([_seal(element) for element in _read(html).seals])
    parts = html.split(f'{SEAL}=""')
    return parts[0] + "".join(f'{SEAL}="{next(seals)}"{part}' for part in parts[1:])


def verify(
    report: Path, computations: Mapping[str, Computation], *, root: Path | None = None
) -> Verification:
    """Recompute every number of a report from the records that it names.

    ``root`` takes the place of the folder that held the runs when the report was written.

    Raises:
        UserError: The file is no report, or a record is not there.
    """
    try:
        reader = _read(report.read_text(encoding="utf-8"))
        known = parse_json(reader.records)
        base, names = str(known["base"]), [str(name) for name in known["records"]]
    except OSError as error:
        raise UserError(
            f"it cannot be read ({error.strerror})", where=str(report), expected="a report.html of dure"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            "this is no report of dure", where=str(report), expected="a file that dure report wrote"
        ) from None
    if not any(element.tag == _PAGE for element in reader.seals):
        raise UserError(
            "the page as a whole has no seal: it was removed, or an earlier dure wrote the page",
            where=str(report),
            expected="the attribute data-seal of <html>",
            hint="`dure report` writes the page again",
        )
    sources = Sources(report.parent / base if root is None else root, computations)
    changes = [*_changed_numbers(reader, sources, names), *_changed_words(reader)]
    return Verification(str(report), len(names), len(reader.marks), tuple(changes))


def _changed_numbers(reader: _Reader, sources: Sources, names: list[str]) -> Iterator[Change]:
    for mark in reader.marks:
        number, _, text = str(mark.attributes["data-at"]).partition(":")
        written, shown = str(mark.attributes.get("data-as")), "".join(mark.words)
        if not number.isdecimal() or int(number) >= len(names) or written not in FORMATS:
            yield Change(mark.where, shown, "a mark that no report has")
            continue
        name = names[int(number)]
        source = sources.named(name)
        keys = keys_of(text, source.data)
        value = source.get(*keys)
        where = f"{mark.where} ({name}#{text})"
        recorded = "nothing" if value is None else FORMATS[written](value, str(keys[-1]) if keys else "")
        kept = mark.attributes.get("value")
        if shown != recorded:
            yield Change(where, shown, recorded)
        elif kept is not None and kept != json.dumps(value):
            yield Change(where, f"{shown} (value {kept})", f"{recorded} (value {json.dumps(value)})")


def _changed_words(reader: _Reader) -> Iterator[Change]:
    for element in reader.seals:
        if element.attributes[SEAL] != _seal(element):
            what = "a picture that was" if element.tag == _PICTURE else "words or looks that were"
            yield Change(element.where, f"{what} changed after the report was written", "")


def require_replaceable(file: Path, *, force: bool) -> None:
    """Check that a page may be written: there is nothing, or an earlier page of dure.

    Raises:
        UserError: The file is a folder, or somebody else's and ``force`` is not given.
    """
    if file.is_dir():
        raise UserError("this is a folder", where=f"--output {file}", expected="a file, such as report.html")
    if force or not file.exists():
        return
    with file.open(encoding="utf-8", errors="replace") as stream:
        is_page = RECORDS in stream.read(_HEAD_LETTERS)
    if not is_page:
        raise UserError(
            "there is a file that dure did not write",
            where=f"--output {file}",
            hint="another file, or --force",
        )


def verification_text(found: Verification) -> str:
    """Return what became of a report, for people: a line for everything that was changed."""
    lines = [
        f"{change.where}: the report says {change.shown!r}, its record {change.recorded!r}"
        if change.recorded
        else f"{change.where}: {change.shown}"
        for change in found.changes
    ]
    checked = f"{counted(found.numbers, 'number')} recomputed from {counted(found.records, 'record')}"
    verdict = "all are true" if found.is_true else f"{counted(len(found.changes), 'difference')}"
    return "\n".join([*lines, f"{found.report}: {checked}; {verdict}"])
