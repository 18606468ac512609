"""The picture of one run: its losses, what validation measured, and the learning rate, over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.metrics.metric import undeclared
from dure.reporting.figures import class_figure, is_speed, metric_label
from dure.reporting.plots import BLUE, GREEN, GREY, PURPLE, VERMILION, grid, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, GREY, "black")
_MOST_LINES = len(_COLOURS)
Record = Mapping[str, Any]


def plot_curves(path: Path, records: Sequence[Record], *, title: str) -> None:
    """Write the picture as PNG.

    Args:
        path: File to write.
        records: Contents of the run's ``metrics.jsonl``.
        title: What stands above the picture.
    """
    train = [record for record in records if record["kind"] == "train"]
    evals = [record for record in records if record["kind"] == "eval" and "eval_loss" in record]
    names = [name for record in evals for name in record if name.startswith("eval_") and not is_speed(name)]
    known = [name for name in dict.fromkeys(names) if class_figure(name) is None]
    losses = [name for name in known if name.startswith("eval_loss")]
    shares = [name for name in known if undeclared(name).in_percent]
    with picture(path, title=title, width=10, height=6.4) as figure:
        axes = figure.subplots(2, 2)
        _lines(axes[0][0], train, ["loss"], "training loss")
        _lines(axes[0][1], evals, losses, "validation losses")
        _lines(axes[1][0], evals, shares, "validation, %", factor=100, style="--")
        _lines(axes[1][1], train, ["learning_rate"], "learning rate")


def _lines(
    axis: Axes,
    records: Sequence[Record],
    names: Sequence[str],
    title: str,
    *,
    factor: float = 1.0,
    style: str = "-",
) -> None:
    """Draw a panel; its title says what a lone line is, and only several need names."""
    axis.set_title(title)
    axis.set_xlabel("epoch")
    for name, colour in zip(names[:_MOST_LINES], _COLOURS, strict=False):
        points = [(row["epoch"], factor * row[name]) for row in records if row.get(name) is not None]
        if points:
            label = metric_label(name) if len(names) > 1 else "_"
            axis.plot(*zip(*points, strict=True), style, color=colour, linewidth=1.4, label=label)
    grid(axis)
