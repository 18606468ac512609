"""Numbers of a page that say where they come from, so that they can be recomputed from there.

A mark is shown text with three things in its element: where its value stands in which record, as ``record:pointer``
(RFC 6901, JSON Pointer), the value itself, and how it is written. :mod:`dure.reporting.verifying` reads them back.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from markupsafe import Markup, escape

from dure.config.tree import plain, read_yaml
from dure.data.cells import LONGEST_CELL
from dure.errors import UserError
from dure.files import MAX_RECORD_BYTES, in_bytes, read_json, read_json_lines
from dure.metrics.metric import Metric, Unit, undeclared
from dure.reporting.figures import (
    NOTHING,
    class_figure,
    duration,
    memory,
    metric_change,
    metric_figure,
    metric_label,
    percent,
    setting_text,
)

Key = str | int
Computation = Callable[[Sequence[Path]], Mapping[str, Any]]
"""Makes from the records of folders what stands in none of them as it is."""
Format = Callable[[Any, str], str]

_APART = " and "
"""Between the folders that something is computed from."""
LONGEST_TEXT = 4000
"""Letters of a text that are shown; what is longer is cut."""


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def _bare_label(name: str) -> str:
    return metric_label(Metric(name, None, "memory" if undeclared(name).unit == "memory" else "number"))


def _parted(name: str) -> tuple[str, str]:
    """Return the measure of a figure of a class, and the class; the name twice of any other."""
    return class_figure(name) or (name, name)


FORMATS: Mapping[str, Format] = {
    "text": lambda value, key: _shortened(value),
    "beginning": lambda value, key: str(value)[:80],
    "words": lambda value, key: str(value).replace("_", " "),
    "setting": lambda value, key: setting_text(value),
    "duration": lambda value, key: duration(value),
    "memory": lambda value, key: memory(value),
    "ratio": lambda value, key: percent(value),
    "p": lambda value, key: "< 0.001" if value < 1e-3 else f"{value:.3f}",
    "hash": lambda value, key: str(value)[:12],
    "date": lambda value, key: str(value)[:16].replace("T", " "),
    "label": lambda value, key: _bare_label(key),
    "metric": lambda value, key: _bare_label(str(value)),
    "class": lambda value, key: _parted(key)[1],
    "measure": lambda value, key: _bare_label(_parted(key)[0]),
    "key": lambda value, key: key,
    "whole-percent": lambda value, key: f"{100 * value:.0f} %",
    "digits": lambda value, key: f"{value:.5g}",
    "signed": lambda value, key: f"{value:+.4g}",
    "ending": lambda value, key: str(value).rpartition(".")[2],
    **{
        unit: lambda value, key, unit=unit: metric_figure(Metric("", None, unit), value)  # type: ignore[misc]
        for unit in get_args(Unit)
    },
    **{
        f"change-{unit}": lambda value, key, unit=unit: metric_change(Metric("", None, unit), value)  # type: ignore[misc]
        for unit in get_args(Unit)
    },
}
"""How a value is written, by name; it gets the value and the last key of its pointer."""


@dataclass(frozen=True)
class Mark:
    """A value of a record as a page shows it.

    It stands ``at`` the number of a record and a JSON pointer, and is ``shown`` in the format ``written``.
    """

    at: str
    value: Any
    written: str
    shown: str

    def __html__(self) -> Markup:
        # A text says itself what it is.
        is_text = isinstance(self.value, str)
        value = Markup() if is_text else Markup(' value="{}"').format(json.dumps(self.value))
        return Markup('<data data-at="{}" data-as="{}"{}>{}</data>').format(
            self.at, self.written, value, self.shown
        )

    def __str__(self) -> str:
        return self.shown


Shown = Mark | str
"""What stands in the place of a number: its mark, or that there is none."""


class Source:
    """One record of a page: what it holds, and the marks of that."""

    def __init__(self, place: int, data: Any) -> None:
        self._place = place
        self.data = data

    def get(self, *keys: Key) -> Any:
        """Return what stands at keys; None where nothing does."""
        found = self.data
        for key in keys:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def mark(self, *keys: Key, written: str = "text") -> Shown:
        """Return the mark of what stands at keys; a dash where nothing does."""
        value = self.get(*keys)
        if value is None:
            return NOTHING
        shown = FORMATS[written](value, str(keys[-1]) if keys else "")
        return Mark(f"{self._place}:{pointer(keys)}", value, written, shown)

    def figure(self, *keys: Key, metric: Metric) -> Shown:
        """Return the mark of a metric's value, in its unit; a text stays one."""
        return self.mark(*keys, written="text" if isinstance(self.get(*keys), str) else metric.unit)

    def label(self, metric: Metric, *keys: Key, written: str = "metric") -> Markup:
        """Return the heading of a metric that stands at keys, or is the last of them, with its unit."""
        return sentence("{}{}", self.mark(*keys, written=written), " %" if metric.in_percent else "")

    def interval(self, *keys: Key, written: str) -> Shown | Markup:
        """Return the ends of an interval that stands at keys: ``+0.1 to +0.3``; a dash where there is none."""
        if self.get(*keys) is None:
            return NOTHING
        return sentence("{} to {}", *(self.mark(*keys, end, written=written) for end in ("low", "high")))

    def change(self, *keys: Key, metric: Metric) -> Shown:
        """Return the mark of a difference of a metric, with its sign."""
        return self.mark(*keys, written=f"change-{metric.unit}")


class Sources:
    """The records of a page, in the order in which they are first read.

    Their paths are relative to the folder ``base``; ``computations`` are by name what is computed from a folder.
    """

    def __init__(self, base: Path, computations: Mapping[str, Computation] | None = None) -> None:
        self.base = base.resolve()
        self._computations = computations or {}
        self._found: dict[str, Source] = {}

    @property
    def names(self) -> list[str]:
        """What each record is, by its number: the path of a file, or ``what of folder and folder`` of what is computed."""
        return list(self._found)

    def file(self, path: Path) -> Source:
        """Return the record in a file; an empty one when the file is not there."""
        return self._source(relative_to(path.resolve(), self.base))

    def computed(self, what: str, *folders: Path) -> Source:
        """Return what is computed from folders."""
        named = _APART.join(relative_to(folder.resolve(), self.base) for folder in folders)
        return self._source(f"{what} of {named}")

    def named(self, name: str) -> Source:
        """Return a record by its name among :attr:`names`.

        Raises:
            UserError: The file is not there, or it is no record.
        """
        what, of, _ = name.partition(" of ")
        if not (of and what in self._computations) and not (self.base / name).is_file():
            raise UserError(
                "a record that the report names is not there",
                where=str(self.base / name),
                expected="the folders of its runs, as they lay when it was written",
                hint="--root DIR, where DIR holds them",
            )
        return self._source(name)

    def _source(self, name: str) -> Source:
        if name not in self._found:
            self._found[name] = Source(len(self._found), None)
            self._found[name].data = self._read(name)
        return self._found[name]

    def _read(self, name: str) -> Any:
        what, of, folders = name.partition(" of ")
        if of and what in self._computations:
            # As it stands in JSON, which knows neither tuples nor numbers as keys.
            found = self._computations[what]([self.base / folder for folder in folders.split(_APART)])
            return json.loads(json.dumps(found, ensure_ascii=False))
        path = self.base / name
        return read_record(path) if path.is_file() else {}


def read_record(path: Path) -> Any:
    """Read what a file holds: JSON, one JSON object a line, YAML, or the rows of a CSV by their columns.

    Raises:
        UserError: It is broken.
    """
    match path.suffix:
        case ".jsonl":
            return read_json_lines(path)
        case ".yaml":
            return plain(read_yaml(path))
        case ".csv":
            if path.stat().st_size > MAX_RECORD_BYTES:
                raise UserError(f"this is larger than {in_bytes(MAX_RECORD_BYTES)}", where=str(path))
            csv.field_size_limit(LONGEST_CELL)
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        case _:
            return read_json(path, what="record")


def pointer(keys: Sequence[Key]) -> str:
    """Return keys as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def keys_of(text: str, data: Any) -> list[Key]:
    """Return the keys of a JSON Pointer into given data, where places of a list are numbers."""
    keys: list[Key] = []
    for part in text.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        key: Key = int(name) if isinstance(data, Sequence) and name.isdecimal() else name
        keys.append(key)
        data = Source(0, data).get(key)
    return keys


def sentence(text: str, *parts: object, **named: object) -> Markup:
    """Return a sentence with marks in it: ``{}`` stand for them; everything but the text itself is escaped."""
    return Markup(escape(text)).format(*parts, **named)


def listed(names: Sequence[object]) -> Markup:
    """Return names or marks as a sentence has them: ``a, b and c``."""
    shown = [escape(name) for name in names]
    if len(shown) < 2:
        return Markup().join(shown)
    return Markup(", ").join(shown[:-1]) + Markup(" and ") + shown[-1]


def relative_to(path: Path, base: Path) -> str:
    """Return the way from one folder to a path, as pages write it."""
    return Path(os.path.relpath(path, base)).as_posix()
