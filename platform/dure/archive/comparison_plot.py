"""The curves of compared settings in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dure.archive.left import LeftRun
from dure.archive.settings import Setting
from dure.files import read_json_lines
from dure.metrics.metric import Metric
from dure.reporting.figures import metric_label, shortened
from dure.reporting.plots import BLUE, GREEN, GREY, PURPLE, VERMILION, grid, hangul_font, language, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#000000", "#999933")
_STYLES = ("-", "--", "-.", ":")
_MOST_NAMED = 16
_LONGEST_NAME = 40
_WORDS = {
    "ko": {
        "epoch": "에폭",
        "loss": "학습 손실",
        "validation": "검증",
        "trivial": "자명한 예측기",
        "more": "그 밖의 설정",
    },
    "en": {
        "epoch": "epoch",
        "loss": "training loss",
        "validation": "validation",
        "trivial": "trivial predictor",
        "more": "further settings",
    },
}

Points = list[tuple[float, float]]


def plot_comparison(path: Path, settings: Sequence[Setting], metric: Metric) -> None:
    """Write validation scores and training losses over epochs as PNG, a colour per setting and a line per run.

    Args:
        path: File to write.
        settings: What was compared, best first.
        metric: What it was compared by, by its name without ``eval_``.
    """
    words = _WORDS[language()]
    with picture(path, title=metric_label(metric), width=10.5, height=4.6) as figure:
        scores, losses = figure.subplots(1, 2)
        for place, setting in enumerate(settings):
            is_named = place < _MOST_NAMED
            colour = _COLOURS[place % len(_COLOURS)] if is_named else GREY
            style = _STYLES[place // len(_COLOURS) % len(_STYLES)]
            label = _shown(setting.name, place) if is_named else words["more"]
            for axis, kind, name in ((scores, "eval", f"eval_{metric.name}"), (losses, "train", "loss")):
                for run in setting.runs:
                    _draw(
                        axis,
                        _points(run, kind, name),
                        metric,
                        colour,
                        style,
                        label,
                        in_percent=axis is scores,
                    )
        _draw_baseline(scores, settings, metric, words["trivial"])
        scores.set_ylabel(f"{metric_label(metric)} ({words['validation']})")
        losses.set_ylabel(words["loss"])
        for axis in (scores, losses):
            axis.set_xlabel(words["epoch"])
            axis.xaxis.get_major_locator().set_params(integer=True)
            grid(axis)


def _points(run: LeftRun, kind: str, name: str) -> Points:
    return [
        (float(record["epoch"]), float(record[name]))
        for record in read_json_lines(run.folder.metrics)
        if record.get("kind") == kind and isinstance(record.get(name), int | float)
    ]


def _draw(
    axis: Axes, points: Points, metric: Metric, colour: str, style: str, label: str, *, in_percent: bool
) -> None:
    if not points:
        return
    epochs, values = np.asarray(points).T
    scale = 100 if in_percent and metric.in_percent else 1
    marker = "o" if len(points) == 1 else None
    axis.plot(
        epochs, values * scale, style, color=colour, label=label, linewidth=1.3, alpha=0.85, marker=marker
    )


def _draw_baseline(axis: Axes, settings: Sequence[Setting], metric: Metric, label: str) -> None:
    """Draw the trivial predictor, which is another one where rows differ."""
    scale = 100 if metric.in_percent else 1
    known = {run.figure(f"baseline_{metric.name}") for setting in settings for run in setting.runs}
    for value in known - {None}:
        if value is not None:
            axis.axhline(value * scale, color=GREY, linestyle=":", linewidth=1.2, label=label)


def _shown(name: str, place: int) -> str:
    """Return a name for the legend: cut where it is long, and a number where this machine lacks its letters."""
    if hangul_font() is None and not name.isascii():
        return f"setting {place + 1}"
    return shortened(name, _LONGEST_NAME)
