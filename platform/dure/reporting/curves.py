"""The curves of runs: losses, scores with the trivial baseline, and learning rates, over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.files import read_json_lines
from dure.metrics.metric import BASELINE, UNTRAINED, Metric, undeclared, under
from dure.reporting.figures import class_figure, is_speed, metric_label, number
from dure.reporting.plots import GREY, SERIES, Drawing, grid, picture, spoken, verbatim, whole_epochs
from dure.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "training_curves.png"
"""Their file in the folder of a run or study."""
_PANEL_WIDTH = 3.8
"""Of a panel, in inches: a phone shows it whole."""
_MOST_LINES = 8
"""Lines that are told apart; further ones are drawn in grey."""
_MOST_POINTS = 1600
"""Points of a panel, as far as every line keeps its own ends: a picture has no room for more."""
_WORDS = {
    "loss": ("학습 손실", "training loss"),
    "eval": ("검증 손실", "validation loss"),
    "score": ("검증 점수 (%)", "validation, %"),
    "rate": ("학습률", "learning rate"),
    "epoch": ("에포크", "epoch"),
    "baseline": ("단순 기준선", "trivial baseline"),
    "others": ("나머지", "others"),
}

Record = Mapping[str, Any]
Words = Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Points are epoch and height; ``baseline`` is the height of the trivial predictor.
    """

    label: str
    points: Sequence[tuple[float, float]]
    baseline: float | None = None


@dataclass(frozen=True)
class RunCurves:
    """What the curves of one run are made of.

    ``records`` are the contents of its ``metrics.jsonl``, ``figures`` what its ``result.json`` has as ``metrics``; the
    trivial baselines are among them.
    """

    name: str
    records: Sequence[Record]
    figures: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, name: str) -> RunCurves:
        """Read what a run left.

        Raises:
            UserError: A record of it is broken.
        """
        run = RunFolder(folder)
        result = run.read_result()
        return cls(name, read_json_lines(run.metrics), {} if result is None else result.metrics)

    def curve(self, name: str, label: str, factor: float = 1.0, most: int = _MOST_POINTS // 8) -> Curve:
        """Return the line of a figure, thinned out where it has more points than can be seen.

        That of a validation begins with the untrained model, where that was validated.
        """
        before = under(name, UNTRAINED)
        rows = [
            (float(row["epoch"]), factor * value)
            for row in self.records
            if (value := number(row.get(name, row.get(before)))) is not None
        ]
        step = -(-len(rows) // most) or 1
        kept = [row for place, row in enumerate(rows) if (len(rows) - 1 - place) % step == 0]
        baseline = number(self.figures.get(under(name, BASELINE))) if name.startswith("eval_") else None
        return Curve(label, kept, None if baseline is None else factor * baseline)

    def validated(self) -> list[str]:
        """Return the names of what its validations measured of all rows, losses first."""
        names = dict.fromkeys(name for row in self.records for name in row if name.startswith("eval_"))
        known = [name for name in names if class_figure(name) is None and not is_speed(name)]
        return sorted(known, key=lambda name: not name.startswith("eval_loss"))


def plot_run(target: Path | Drawing, run: RunCurves) -> None:
    """Draw one run: its training loss, all that validation measured, and its learning rate; a legend per panel."""
    words = spoken(_WORDS, target)
    names = run.validated()
    losses = [name for name in names if name.startswith("eval_loss")]
    shares = [name for name in names if undeclared(name).in_percent]
    others = [name for name in names if name not in (*losses, *shares)]
    panels = [
        (words["loss"], [run.curve("loss", "")]),
        (words["eval"], [run.curve(name, metric_label(name)) for name in losses]),
        (words["score"], [run.curve(name, metric_label(name), 100) for name in shares]),
        *(
            (title, [run.curve(name, metric_label(name) if len(group) > 1 else "") for name in group])
            for title, group in _grouped(others)
        ),
        (words["rate"], [run.curve("learning_rate", "")]),
    ]
    _draw(target, run.name, panels, words, shared_legend=False)


def plot_runs(target: Path | Drawing, runs: Sequence[RunCurves], metric: Metric, *, title: str) -> None:
    """Draw runs side by side: training loss, validation loss, one score and learning rate; one legend of their names.

    Runs of one name, as those of several seeds, have one colour. The most important runs come first: the others have no
    colour of their own.
    """
    words = spoken(_WORDS, target)
    most = _MOST_POINTS // max(_MOST_LINES, len(runs))

    def panel(title: str, name: str, factor: float = 1.0) -> tuple[str, list[Curve]]:
        return title, [run.curve(name, run.name, factor, most) for run in runs]

    panels = [panel(words["loss"], "loss"), panel(words["eval"], "eval_loss")]
    if metric.name != "eval_loss":
        panels.append(panel(metric_label(metric), metric.name, 100 if metric.in_percent else 1))
    panels.append(panel(words["rate"], "learning_rate"))
    _draw(target, title, panels, words, shared_legend=True)


def _grouped(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return figures of one measure together, as their names end: ``surd_mae`` and ``regret_mae`` as ``mae``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("_")[2], []).append(name)
    return [(end if len(group) > 1 else metric_label(group[0]), group) for end, group in groups.items()]


def _draw(
    target: Path | Drawing,
    title: str,
    panels: Sequence[tuple[str, Sequence[Curve]]],
    words: Words,
    *,
    shared_legend: bool,
) -> None:
    shown = [(name, curves) for name, curves in panels if any(curve.points for curve in curves)]
    last = max((point[0] for _, curves in shown for curve in curves for point in curve.points), default=1.0)

    def panel(axis: Axes, name: str, curves: Sequence[Curve]) -> None:
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(words["epoch"])
        _lines(axis, curves, words)
        whole_epochs(axis, last)
        axis.ticklabel_format(axis="y", useOffset=False, scilimits=(-3, 4))
        grid(axis)
        if not shared_legend and axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=7, loc="best")

    if not isinstance(target, Path):
        # Panel by panel: a page puts them abreast as far as there is room, and beneath each other on a phone.
        named: dict[str, Any] = {}
        for name, curves in shown:
            with picture(target, title=name, width=_PANEL_WIDTH, height=2.5, shared_legend=False) as figure:
                panel(axis := figure.subplots(), name, curves)
                named |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        if shared_legend and named:
            height = 0.2 * len(named) + 0.2
            with picture(
                target, title=title, width=_PANEL_WIDTH, height=height, shared_legend=False
            ) as figure:
                figure.legend(named.values(), named.keys(), loc="center left", frameon=False)
        return
    columns = 2 if len(shown) > 1 else 1
    rows = max(1, -(-len(shown) // columns))
    with picture(
        target, title=title, width=2 * _PANEL_WIDTH, height=2.5 * rows + 0.6, shared_legend=shared_legend
    ) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for axis, (name, curves) in zip(axes, shown, strict=False):
            panel(axis, name, curves)
        for axis in figure.axes[len(shown) :]:
            axis.set_visible(False)


def _lines(axis: Axes, curves: Sequence[Curve], words: Words) -> None:
    """Draw the lines of a panel, those of one name in one colour, each with the baseline that it must beat."""
    drawn = [curve for curve in curves if curve.points]
    names = list(dict.fromkeys(curve.label for curve in drawn))
    told_apart = len(names) if len(names) <= _MOST_LINES else _MOST_LINES - 1
    for curve in drawn:
        place = names.index(curve.label)
        color, label = SERIES[min(place, _MOST_LINES - 1)], verbatim(curve.label) or "_"
        if place >= told_apart:
            color = GREY
            label = words["others"] if place == len(names) - 1 else "_"
        is_marked = place < told_apart and len(curve.points) < 12
        look: dict[str, Any] = {"marker": "o" if is_marked else None, "markersize": 3}
        axis.plot(
            *zip(*curve.points, strict=True), color=color, label=label, alpha=1 if place < told_apart else 0.4,
            linewidth=1.4 if place < told_apart else 0.7, zorder=3 - place / 1000, **look,
        )  # fmt: skip
    levels = {curve.baseline for curve in drawn if curve.baseline is not None}
    for place, level in enumerate(sorted(levels)):
        color = next(
            SERIES[min(names.index(curve.label), _MOST_LINES - 1)]
            for curve in drawn
            if curve.baseline == level
        )
        axis.axhline(
            level, color="black" if len(levels) == 1 else color, linewidth=1, linestyle=(0, (5, 3)),
            label=words["baseline"] if place == 0 else "_",
        )  # fmt: skip
