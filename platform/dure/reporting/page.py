"""One self-contained page: sections of blocks, written as HTML that asks no network for anything.

Charts are inline SVG by matplotlib, which draws all other pictures of dure: 9 to 40 KB each, and no script, whose smallest
would take the whole MB of a page, and draw nothing in mail and on paper.

Every text passes jinja2's escaping; the page's policy lets nothing be loaded, should something slip through.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from dure.errors import one_line, shell_word
from dure.events import Notify
from dure.reporting.columns import Cell, Column
from dure.reporting.marks import Shown, Sources, relative_to
from dure.reporting.plots import Drawing
from dure.reporting.verifying import sealed

if TYPE_CHECKING:
    from jinja2 import Template

REPORT = "report.html"
"""The page in the folder of a run or study."""

Inline = Shown | Markup

logger = logging.getLogger(__name__)


@contextmanager
def page_attempted(path: Path, notify: Notify) -> Iterator[None]:
    """Write the page of what is over inside a ``with``: when that fails, it is told and nothing else fails."""
    try:
        yield
    except Exception as error:
        logger.exception("no page is written")
        notify(
            f"{REPORT} is not written, and all else is: {one_line(error)}; dure report {shell_word(path)} tries again"
        )


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: Inline


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: Sequence[Inline]
    ordered: bool = False


@dataclass(frozen=True)
class Table:
    """Columns beside each other; the cells of the first one head their rows.

    Rows at places that are ``strong`` stand out.
    """

    caption: Inline
    columns: Sequence[Column]
    strong: Collection[int] = ()

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """Its cells, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))


@dataclass(frozen=True)
class Pairs:
    """Names and what stands behind them."""

    items: Sequence[tuple[Inline, Inline]]


@dataclass(frozen=True)
class Picture:
    """A picture with its caption."""

    caption: Inline
    drawing: Drawing


@dataclass(frozen=True)
class Command:
    """Something to be typed."""

    text: Inline


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when asked for, and on paper."""

    summary: Inline
    blocks: Sequence[Block]


Block = Paragraph | Points | Table | Pairs | Picture | Command | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: Inline
    blocks: Sequence[Block] = ()
    parts: Sequence[Section] = ()

    @property
    def anchor(self) -> str:
        """Name by which the page leads to it."""
        return re.sub(r"\W+", "-", str(Markup(self.title).striptags()).lower()).strip("-") or "part"


@dataclass(frozen=True)
class Page:
    """A whole page.

    Notes are what the reader must know first, such as that miniatures trained.
    """

    title: Inline
    lead: Inline
    sections: Sequence[Section]
    sources: Sources
    notes: Sequence[Inline] = field(default_factory=tuple)

    def html(self, folder: Path) -> str:
        """Return the page as it is to lie in a folder.

        The page names its records from there.
        """
        # The body first: drawing it reads the records that the head lists.
        known = {"base": relative_to(self.sources.base, folder.resolve()), "records": self.sources.names}
        listed = json.dumps(known, ensure_ascii=False).replace("<", "\\u003c")
        return sealed(
            template(Path(__file__)).render(page=self, records=Markup(listed))
        )  # JSON without a tag


@cache
def template(module: Path) -> Template:
    """Return the template ``page.html`` beside a module; every text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(module.with_name("page.html").read_text(encoding="utf-8"))
