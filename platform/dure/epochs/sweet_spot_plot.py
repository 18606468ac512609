"""The pictures of sweet spots: a module's losses over the epochs, with what each voter names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.epochs.sweet_spot_table import Row, runs_of
from dure.reporting.figures import number
from dure.reporting.plots import BLUE, GREEN, GREY, PALE, PURPLE, VERMILION, Drawing, grid, picture, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WORDS = {
    "title": ("모듈별 최적 에포크 (Sweet Spot)", "sweet spot of every module"),
    "epoch": ("에포크", "epoch"),
    "loss": ("손실", "loss"),
    "eval": ("검증 손실", "eval loss"),
    "train": ("학습 손실", "train loss"),
    "spot": ("Sweet Spot", "sweet spot"),
    "plateau": ("정체 구간", "plateau"),
    "lowest": ("최저", "lowest"),
    "criteria": ("기준 충족", "meets all criteria"),
    "first": ("낮은 정체 시작", "low plateau begins"),
    "score": ("점수", "best score"),
    "none": ("없음", "none"),
    "sure": ("신뢰도", "confidence"),
    "few": ("판단하기에 에포크가 부족함", "too few epochs to say"),
}
_MARKS = {
    "lowest": ("lowest", "v", VERMILION),
    "criteria": ("criteria", "s", GREEN),
    "plateau": ("first", "D", PURPLE),
    "score": ("score", "^", "black"),
}
_ABREAST = 3
_MARK_ROOM = 0.055
"""Height of the marks above each other, as a share of the axis; they stand along its lower edge."""


def plot_sweet_spots(target: Path | Drawing, record: Mapping[str, Any]) -> None:
    """Draw the picture: a panel per module.

    A picture is a PNG file or the drawing of a page; ``record`` is what ``dure.epochs.sweet_spot.analysis_record``
    returns.
    """
    words = spoken(_WORDS, target)
    modules: Mapping[str, Row] = record["modules"]
    columns = min(_ABREAST, max(1, len(modules)))
    rows = max(1, math.ceil(len(modules) / columns))
    width, height = max(7.2, 3.6 * columns), 2.7 * rows + 1.1
    with picture(target, title=words["title"], width=width, height=height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for place, axis in enumerate(panels):
            if place >= len(modules):
                axis.set_visible(False)
                continue
            name = list(modules)[place]
            _draw(axis, name, modules[name], words)
            if place % columns == 0:
                axis.set_ylabel(words["loss"])
            if place + columns >= len(modules):
                axis.set_xlabel(words["epoch"])


def _draw(axis: Axes, name: str, row: Row, words: Mapping[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    evals, trains = _points(row["series"], "eval_loss"), _points(row["series"], "train_loss")
    for place, (begin, end) in enumerate(runs_of(row["met"]["plateau"], [epoch for epoch, _ in evals])):
        label = words["plateau"] if place == 0 else "_"
        axis.axvspan(begin - 0.5, end + 0.5, color=PALE, alpha=0.35, linewidth=0, label=label)
    for points, word, color, width, marker in (
        (trains, "train", GREY, 1, "."), (evals, "eval", BLUE, 1.8, "o"),
    ):  # fmt: skip
        if points:
            look: dict[str, Any] = {"color": color, "linewidth": width, "marker": marker, "markersize": 3}
            axis.plot(*zip(*points, strict=True), label=words[word], **look)
    spot = row["epoch"]
    if spot is not None:
        axis.axvline(spot, color=BLUE, linewidth=1, linestyle=(0, (4, 2)))
        axis.plot(
            spot, row["eval_loss"], marker="*", markersize=15, color=BLUE, markeredgecolor="white",
            linestyle="none", label=words["spot"], zorder=5,
        )  # fmt: skip
    _draw_votes(axis, row["votes"], words)
    axis.set_title(f"{name}: {_found(row, words)}", fontsize=9)
    axis.margins(y=0.12)
    low, high = axis.get_ylim()
    # Room for the votes beneath the curves.
    axis.set_ylim(low - (high - low) * _MARK_ROOM * (len(_MARKS) + 0.5), high)
    axis.set_xlim(0, max([epoch for epoch, _ in (*evals, *trains)], default=1) + 1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid(axis)


def _found(row: Row, words: Mapping[str, str]) -> str:
    if row["epoch"] is None:
        return words["none"]
    if row["confidence"] is None:
        return f"{row['epoch']} ({words['few']})"
    return f"{row['epoch']} ({words['sure']} {100 * row['confidence']:.0f} %)"


def _draw_votes(axis: Axes, votes: Mapping[str, int | None], words: Mapping[str, str]) -> None:
    axis.plot((0, 1), [_MARK_ROOM * len(_MARKS)] * 2, color=GREY, linewidth=0.6, transform=axis.transAxes)
    for place, (voter, (word, marker, color)) in enumerate(_MARKS.items()):
        epoch = votes.get(voter)
        axis.plot(
            [] if epoch is None else [epoch], [] if epoch is None else [_MARK_ROOM * (place + 0.5)],
            marker=marker, markersize=5, color=color, linestyle="none", label=words[word],
            transform=axis.get_xaxis_transform(), zorder=4,
        )  # fmt: skip


def _points(series: Sequence[Row], name: str) -> list[tuple[int, float]]:
    return [(row["epoch"], value) for row in series if (value := number(row[name])) is not None]
