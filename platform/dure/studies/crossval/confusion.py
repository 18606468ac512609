"""The picture and the table of a confusion matrix: which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len

from dure.data.writing import write_rows
from dure.errors import shortened
from dure.reporting.plots import Drawing, hangul_font, picture, spoken, verbatim
from dure.studies.crossval.results import ConfusionRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WORDS = {
    "true": ("실제", "true class"),
    "predicted": ("예측", "predicted class"),
    "share": ("실제 클래스 중 비율 (%)", "share of the true class (%)"),
    "key": ("{}", "{} (this machine has no Korean letters: numbers are rows of {}.csv)"),
}
_MOST_WRITTEN = 16
"""Classes up to which the cells have numbers."""
_LONGEST_NAME = 14
_LEVEL = 8
"""Widest name, in cells of which a Korean letter takes two, that stands level beneath a class ``_INCHES`` wide."""
_INCHES = 0.62
_LEAST, _MOST = 3.2, 14.0
_DARK = 0.55
"""Share from which on white letters are read better than black ones."""
_ON_DARK, _ON_PALE = "#fefefe", "#111111"
"""Letters on cells, which have one colour on light and on dark pages, unlike all others."""


def plot_confusion(target: Path | Drawing, confusion: ConfusionRecord, *, title: str) -> None:
    """Draw a confusion matrix: true classes downwards, each cell with its count and percent of the row.

    A picture is a PNG file or the drawing of a page.
    """
    counts = np.asarray(confusion.counts, dtype=np.int64)
    names = _drawable(confusion.classes, is_inline=not isinstance(target, Path))
    words = spoken(_WORDS, target)
    longest = max(map(cell_len, names))
    room = 0.07 * longest + 1.0
    side = min(max(_INCHES * len(names), _LEAST), _MOST)
    with picture(target, title=title, width=side + room + 0.9, height=side + room + 0.3) as figure:
        axis = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # Equal aspects push the labels out of a constrained layout; the size above makes cells nearly square.
        image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        bar = figure.colorbar(image, ax=axis, shrink=0.8, label=words["share"])
        bar.ax.set_yticks(np.linspace(0, 1, 6), [f"{percent}" for percent in range(0, 101, 20)])
        slant = longest * len(names) * _INCHES > _LEVEL * side
        axis.set_xticks(
            range(len(names)), names, rotation=45 if slant else 0, ha="right" if slant else "center"
        )
        axis.set_yticks(range(len(names)), names)
        has_key = isinstance(target, Path) and names != _drawable(confusion.classes, is_inline=True)
        label = words["key"] if has_key else "{}"
        axis.set_xlabel(label.format(words["predicted"], target.stem if isinstance(target, Path) else ""))
        axis.set_ylabel(words["true"])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if len(names) <= _MOST_WRITTEN:
            _write_cells(axis, counts, shares)


def write_confusion(path: Path, confusion: ConfusionRecord) -> None:
    """Write a confusion matrix as CSV: a row for every true class, a column for every predicted one."""
    rows = ([name, *counts] for name, counts in zip(confusion.classes, confusion.counts, strict=True))
    write_rows(path, ["true \\ predicted", *confusion.classes], rows)


def _write_cells(axis: Axes, counts: Any, shares: Any) -> None:
    for row, column in np.ndindex(*counts.shape):
        share = float(shares[row, column])
        percent = f"\n{100 * share:.1f} %" if counts[row].sum() else ""
        axis.text(
            column,
            row,
            f"{counts[row, column]:,}{percent}",
            ha="center",
            va="center",
            fontsize=8,
            color=_ON_DARK if share >= _DARK else _ON_PALE,
        )


def _drawable(classes: Sequence[str], *, is_inline: bool) -> list[str]:
    """Return the names to write: cut where they are long, and numbered where this machine lacks their letters."""
    lacks_hangul = not is_inline and hangul_font() is None
    names = []
    for place, name in enumerate(classes, 1):
        if lacks_hangul and not name.isascii():
            names.append(f"class {place}")
        else:
            names.append(verbatim(shortened(name, _LONGEST_NAME)))
    return names
