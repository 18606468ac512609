"""The picture of a sweep: metric and loss over every parameter, with what of it is signal and what is noise.

A band marks the scores that are not told apart from the best one, and a line the trivial baseline. The axis of a
metric is never shorter than that band, so that noise does not fill the height of the picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dure.config.spaces import SearchSpace
from dure.metrics.metric import Metric
from dure.reporting.figures import metric_label
from dure.reporting.plots import (
    BLUE,
    GREEN,
    GREY,
    PALE,
    PURPLE,
    VERMILION,
    Drawing,
    grid,
    picture,
    spoken,
    verbatim,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dure.studies.sweep.results import SweepPoint, SweepResults
    from dure.studies.sweep.verdict import SweepVerdict

_MOST_COLUMNS = 4
_LEAST_SHARE = 2.0
"""Percentage points that the axis of a share shows at least."""
_LEAST_PART = 0.02
"""Part of its values that the axis of any other figure shows at least."""
_LETTERS_PER_INCH = 12
_WORDS = {
    "completed": ("완료", "completed"),
    "stopped": ("일찍 중단", "stopped early"),
    "diverged": ("발산", "diverged"),
    "never": ("학습률 0", "trained at rate 0"),
    "winner": ("승자", "winner"),
    "loss": ("검증 손실", "eval loss"),
    "baseline": ("기준선", "trivial baseline"),
    "noise": ("최고점과 구별되지 않음", "not told apart from the best"),
    "training.learning_rate": ("학습률", "learning rate"),
}

Words = Mapping[str, str]


def plot_sweep(
    target: Path | Drawing, results: SweepResults, points: Sequence[SweepPoint], space: SearchSpace
) -> None:
    """Draw the picture of a sweep that has its verdict: a column per parameter, a row per metric and one for the loss.

    A picture is a PNG file or the drawing of a page. The first four parameters are drawn.
    """
    words, verdict = spoken(_WORDS, target), results.verdict
    assert verdict is not None, "drawn with what it measured"
    columns = space.ordered()[:_MOST_COLUMNS]
    metrics = (results.metric_named(name) for name in results.metrics if name != "eval_loss")
    rows = [*metrics, Metric("eval_loss", "min")]
    width = max(6.5, 4.2 * len(columns))
    said = textwrap.fill(verdict.sentences[0], round(width * _LETTERS_PER_INCH))
    title = f"{results.study}\n{said}"
    with picture(target, title=title, width=width, height=2.9 * len(rows) + 0.4) as figure:
        axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col")
        for row, metric in enumerate(rows):
            for column, key in enumerate(columns):
                axis = axes[row][column]
                _draw_points(axis, points, key, metric, verdict, words)
                _draw_levels(axis, points, metric, verdict, words)
                if space.is_logarithmic(key) and _is_numeric(points, key):
                    axis.set_xscale("log")
                if column == 0:
                    axis.set_ylabel(words["loss"] if metric.name == "eval_loss" else metric_label(metric))
                if row == len(rows) - 1:
                    axis.set_xlabel(words.get(key, key.rpartition(".")[2].replace("_", " ")))


def _draw_points(
    axis: Axes, points: Sequence[SweepPoint], key: str, metric: Metric, verdict: SweepVerdict, words: Words
) -> None:
    here = [point for point in points if key in point.params]
    numeric = _is_numeric(points, key)
    places = {value: place for place, value in enumerate(dict.fromkeys(str(p.params[key]) for p in here))}

    def across(point: SweepPoint) -> float:
        value = point.params[key]
        return float(value) if numeric else float(places[str(value)])

    def draw(chosen: Sequence[SweepPoint], color: str, marker: str, label: str, *, filled: bool) -> None:
        spots = [
            (across(point), height) for point in chosen if (height := _height(point, metric)) is not None
        ]
        if spots:
            across_all, heights = zip(*spots, strict=True)
            axis.scatter(
                across_all, heights, color=color if filled else "none", edgecolors=color, marker=marker, s=34,
                label=label, zorder=3,
            )  # fmt: skip

    idle = [point for point in here if point.trial in verdict.never_rose]
    done = [point for point in here if point.state == "completed" and point not in idle]
    draw(done, BLUE, "o", words["completed"], filled=True)
    draw(idle, PURPLE, "v", words["never"], filled=False)
    draw([p for p in here if p.state == "stopped"], GREY, "s", words["stopped"], filled=False)
    line = sorted((across(point), height) for point in done if (height := _height(point, metric)) is not None)
    if all(len(point.params) == 1 for point in points) and numeric and len(line) > 1:
        axis.plot(*zip(*line, strict=True), color=BLUE, linewidth=1, alpha=0.5, zorder=2)
    # A diverged point has no score; it stands above the axes, over the rate that made it diverge.
    for place, point in enumerate(point for point in here if point.state == "diverged"):
        axis.plot(
            [across(point)], [1.03], marker="X", markersize=8, color=VERMILION, linestyle="none",
            transform=axis.get_xaxis_transform(), label=words["diverged"] if place == 0 else "_", zorder=4,
            clip_on=False,
        )  # fmt: skip
    for point in here:
        height = _height(point, metric)
        if point.trial == verdict.winner and height is not None:
            axis.scatter(
                [across(point)], [height], marker="*", s=210, color=GREEN, edgecolors="black", linewidths=0.6,
                label=words["winner"], zorder=5,
            )  # fmt: skip
    if not numeric:
        axis.set_xticks(list(places.values()), [*map(verbatim, places)])


def _draw_levels(
    axis: Axes, points: Sequence[SweepPoint], metric: Metric, verdict: SweepVerdict, words: Words
) -> None:
    """Draw baseline and noise of the metric that ranks, and give any metric an axis of a sensible length."""
    heights = [height for point in points if (height := _height(point, metric)) is not None]
    factor = 100 if metric.in_percent else 1
    if metric.name == verdict.metric:
        if verdict.baseline is not None:
            heights.append(factor * verdict.baseline)
            axis.axhline(
                heights[-1], color=VERMILION, linewidth=1.1, linestyle=(0, (5, 2)), label=words["baseline"]
            )
        noise = noise_of(verdict)
        if noise is not None and verdict.score is not None:
            best, worse = (
                factor * verdict.score,
                factor * (-noise if verdict.direction == "max" else noise),
            )
            axis.axhspan(best, best + worse, color=PALE, alpha=0.4, linewidth=0, label=words["noise"])
            heights += [best, best + worse]
    if heights:
        axis.set_ylim(*_limits(heights, _LEAST_SHARE if metric.in_percent else 0.0))
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.margins(x=0.06)
    grid(axis)


def noise_of(verdict: SweepVerdict) -> float | None:
    """Return how far beneath the best score noise reaches, in its units; None where that is not known.

    Every pair of points has an interval of its own; this is half the widest one.
    """
    widths = [
        gap.high - gap.low for gap in verdict.gaps.values() if gap.low is not None and gap.high is not None
    ]
    return max((width / 2 for width in widths if width > 0), default=None)


def _limits(heights: Sequence[float], least: float) -> tuple[float, float]:
    """Return the ends of an axis that holds all heights and is long enough not to show a trifle as a slope."""
    low, high = min(heights), max(heights)
    length = max(high - low, least, _LEAST_PART * max(abs(low), abs(high))) or 1.0
    middle = (low + high) / 2
    return middle - 0.62 * length, middle + 0.62 * length


def _height(point: SweepPoint, metric: Metric) -> float | None:
    """Return what a point reached, as it is shown; of the validation loss, failing that, the training loss."""
    if metric.name == "eval_loss":
        return point.loss if point.eval_loss is None else point.eval_loss
    value = point.metrics.get(metric.name)
    return None if value is None else float(value) * (100 if metric.in_percent else 1)


def _is_numeric(points: Sequence[SweepPoint], key: str) -> bool:
    values = [point.params[key] for point in points if key in point.params]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
