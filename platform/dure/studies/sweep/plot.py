"""The picture of a sweep: metric and loss over every parameter, the winner and diverged points marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.metrics.metric import Metric
from dure.reporting.figures import metric_label
from dure.reporting.plots import BLUE, GREEN, GREY, VERMILION, grid, language, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_COLUMNS = 4
_WORDS = {
    "ko": {
        "completed": "완료",
        "stopped": "일찍 중단",
        "diverged": "발산",
        "best": "최적",
        "loss": "검증 손실",
        "training.learning_rate": "학습률",
    },
    "en": {
        "completed": "completed",
        "stopped": "stopped early",
        "diverged": "diverged",
        "best": "best",
        "loss": "eval loss",
        "training.learning_rate": "learning rate",
    },
}

Point = Mapping[str, Any]


def plot_sweep(
    path: Path,
    points: Sequence[Point],
    *,
    title: str,
    metrics: Sequence[Metric],
    parameters: Mapping[str, bool],
    best: str | None,
) -> None:
    """Write the picture as PNG: a column per parameter, a row per metric and one for the loss.

    Args:
        path: File to write.
        points: From :func:`dure.studies.sweep.results.sweep_points`.
        title: What stands above it.
        metrics: Metrics to draw.
        parameters: Dotted keys, and whether their scale is logarithmic; the first four are drawn.
        best: Name of the winning trial.
    """
    words = _WORDS[language()]
    columns = dict(list(parameters.items())[:_MOST_COLUMNS])
    rows: list[Metric | None] = [*(metric for metric in metrics if metric.name != "eval_loss"), None]
    with picture(path, title=title, width=max(6.5, 4.2 * len(columns)), height=2.9 * len(rows)) as figure:
        axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col")
        for row, metric in enumerate(rows):
            for column, (key, logarithmic) in enumerate(columns.items()):
                axis = axes[row][column]
                _draw(axis, points, key, metric, logarithmic=logarithmic, best=best, words=words)
                if column == 0:
                    axis.set_ylabel(words["loss"] if metric is None else metric_label(metric))
                if row == len(rows) - 1:
                    axis.set_xlabel(words.get(key, key.rpartition(".")[2].replace("_", " ")))


def _draw(
    axis: Axes,
    points: Sequence[Point],
    key: str,
    metric: Metric | None,
    *,
    logarithmic: bool,
    best: str | None,
    words: Mapping[str, str],
) -> None:
    here = [point for point in points if key in point["params"]]
    numeric = all(_is_number(point["params"][key]) for point in here)
    places = {
        str(value): place for place, value in enumerate(dict.fromkeys(str(p["params"][key]) for p in here))
    }

    def across(point: Point) -> float:
        value = point["params"][key]
        return float(value) if numeric else float(places[str(value)])

    def draw(
        names: str, color: str, marker: str, label: str, *, filled: bool = True
    ) -> list[tuple[float, float]]:
        spots = [
            (across(point), value)
            for point in here
            if point["state"] == names and (value := _height(point, metric)) is not None
        ]
        if spots:
            across_all, heights = zip(*spots, strict=True)
            axis.scatter(
                across_all,
                heights,
                color=color if filled else "none",
                edgecolors=color,
                marker=marker,
                s=34,
                label=label,
                zorder=3,
            )
        return spots

    done = draw("completed", BLUE, "o", words["completed"])
    draw("stopped", GREY, "s", words["stopped"], filled=False)
    if len(points[0]["params"]) == 1 and numeric and len(done) > 1:
        axis.plot(*zip(*sorted(done), strict=True), color=BLUE, linewidth=1, alpha=0.5, zorder=2)
    # A diverged point has no height; it stands at the edge of the picture, above the rate that made it diverge.
    for place, point in enumerate(point for point in here if point["state"] == "diverged"):
        axis.plot(
            [across(point)],
            [0.96],
            marker="X",
            markersize=8,
            color=VERMILION,
            linestyle="none",
            transform=axis.get_xaxis_transform(),
            label=words["diverged"] if place == 0 else "_",
            zorder=4,
            clip_on=False,
        )
    for point in here:
        height = _height(point, metric)
        if point["trial"] == best and height is not None:
            axis.scatter(
                [across(point)], [height], marker="*", s=210, color=GREEN, edgecolors="black",
                linewidths=0.6, label=words["best"], zorder=5,
            )  # fmt: skip
    if numeric and logarithmic:
        axis.set_xscale("log")
    elif not numeric:
        axis.set_xticks(list(places.values()), list(places))
    axis.margins(x=0.06, y=0.14)
    grid(axis)


def _height(point: Point, metric: Metric | None) -> float | None:
    """Return what a point reached: a metric as it is shown, or the validation loss for None."""
    if metric is None:
        value = point["eval_loss"] if point["eval_loss"] is not None else point["loss"]
        return None if value is None else float(value)
    value = point["metrics"].get(metric.name)
    return None if value is None else float(value) * (100 if metric.in_percent else 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
