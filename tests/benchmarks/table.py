"""What every benchmark measures, as rows of one table: dure, the best peer, the limit and the ratio.

CPU time decides, since a machine is seldom idle; wall time and the load average stand beside it. A ratio is the median of
the ratios within each repeat, whose ways ran one after the other. A benchmark writes its rows to stderr as a table and to
stdout as JSON; ``python -m tests.benchmarks.all`` runs all of them and makes one table of their rows.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

from rich.console import Console
from rich.table import Table

DURE = "dure"


@dataclass(frozen=True)
class Spent:
    """What one repeat of one way took."""

    cpu: float
    """CPU seconds, of this process and of the children that it waited for; or another figure, as the row says."""
    wall: float
    """Seconds that passed."""

    @classmethod
    def by(cls, work: Callable[[], object]) -> Self:
        """Do some work and return what it took."""
        began, before = time.perf_counter(), _cpu_seconds()
        work()
        return cls(_cpu_seconds() - before, time.perf_counter() - began)


def _cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass(frozen=True)
class Row:
    """One part of the table."""

    part: str
    """What was done, alike by every way."""
    ways: Mapping[str, Sequence[Spent]]
    """What each repeat took, by the name of the way; ``dure`` is one of them."""
    rows: int
    """Rows of data, or whatever else ``unit`` is per."""
    asked: float | None = None
    """Least ratio, or most of the unit where ``limit`` has no peer beside it."""
    limit: str | None = None
    """A way of ``ways`` that does only what nobody can do without; it is no peer."""
    unit: str = "CPU s"
    """Of the figures; less is better."""
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))
    """Load average when it was measured."""

    @property
    def best_peer(self) -> str | None:
        """The peer that is fastest; None when nobody is compared with."""
        peers = [way for way in self.ways if way not in (DURE, self.limit)]
        return min(peers, key=self.cpu, default=None)

    def cpu(self, way: str) -> float:
        """Return the median figure of a way."""
        return median(each.cpu for each in self.ways[way])

    def wall(self, way: str) -> float:
        """Return the median wall time of a way."""
        return median(each.wall for each in self.ways[way])

    def spread(self, way: str) -> float:
        """Return the largest figure of a way less its smallest."""
        figures = [each.cpu for each in self.ways[way]]
        return max(figures) - min(figures)

    def ratio_to(self, way: str) -> float:
        """Return how many times as much another way takes as dure, within repeats."""
        pairs = zip(self.ways[way], self.ways[DURE], strict=True)
        return median(theirs.cpu / ours.cpu for theirs, ours in pairs)

    @property
    def ratio(self) -> float | None:
        """How many times as much the best peer takes; without one, the figure that is asked over dure's."""
        if self.best_peer is not None:
            return self.ratio_to(self.best_peer)
        return None if self.asked is None else self.asked / self.cpu(DURE)

    @property
    def is_reached(self) -> bool | None:
        """Whether what is asked is reached; None when nothing is."""
        if self.asked is None or self.ratio is None:
            return None
        return self.ratio >= (1.0 if self.best_peer is None else self.asked)

    def as_dict(self) -> dict[str, Any]:
        """Return everything measured and computed, as JSON-ready data."""
        figures = {
            way: {"cpu": self.cpu(way), "wall": self.wall(way), "spread": self.spread(way)}
            for way in self.ways
        }
        computed = {"best_peer": self.best_peer, "ratio": self.ratio, "is_reached": self.is_reached}
        ratios = {way: self.ratio_to(way) for way in self.ways if way != DURE}
        return asdict(self) | computed | {"repeats": self.repeats, "figures": figures, "ratios": ratios}

    @property
    def repeats(self) -> int:
        """How often every way was measured."""
        return len(self.ways[DURE])

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the row that :meth:`as_dict` made data of."""
        own = {name: values[name] for name in ("part", "rows", "asked", "limit", "unit", "load")}
        ways = {way: [Spent(**each) for each in repeats] for way, repeats in values["ways"].items()}
        return cls(ways=ways, **own)


def one_table(rows: Sequence[Row], title: str) -> Table:
    """Lay rows below each other, each with its best peer and its limit."""
    table = Table(title=title, title_justify="left")
    for heading in (
        "part",
        "dure",
        "best peer",
        "limit",
        "ratio",
        "asked",
        "spread",
        "wall",
        "rows × repeats",
        "load",
    ):
        table.add_column(heading, justify="left" if heading in ("part", "best peer", "limit") else "right")
    for row in rows:
        peer, limit = row.best_peer, row.limit
        walls = [row.wall(way) for way in (DURE, *([peer] if peer else []))]
        asked = "" if row.asked is None else f"≤ {row.asked:g}" if peer is None else f"≥ {row.asked:g}×"
        table.add_row(
            f"{row.part} ({row.unit})",
            _shown(row.cpu(DURE)),
            "" if peer is None else f"{peer} {_shown(row.cpu(peer))}",
            "" if limit is None else f"{limit} {_shown(row.cpu(limit))}",
            "" if row.ratio is None else f"{row.ratio:.2f}×",
            asked if row.is_reached in (None, True) else f"{asked} missed",
            _shown(max(row.spread(way) for way in row.ways)),
            " / ".join(map(_shown, walls)),
            f"{row.rows:,} × {row.repeats}",
            f"{row.load:.1f}",
        )
    return table


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def hand_over(benchmark: str, rows: Sequence[Row], **more: Any) -> None:
    """Print the rows of a benchmark: a table to stderr and JSON to stdout."""
    Console(stderr=True, width=170).print(one_table(rows, benchmark))
    print(json.dumps({"benchmark": benchmark, "rows": [row.as_dict() for row in rows], **more}))
    sys.stdout.flush()
