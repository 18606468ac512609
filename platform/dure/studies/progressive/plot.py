"""The picture of a progressive study: the metric over the training rows, the forecast, and what each stage cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.reporting.figures import metric_label, number, percent, setting_text
from dure.reporting.plots import BLUE, GREY, PALE, PURPLE, VERMILION, Drawing, grid, picture, spoken, verbatim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dure.studies.progressive.results import CandidateRecord, ProgressiveResults, StageRecord

_WORDS = {
    "rows": ("학습 데이터 (비율, 행 수)", "training data (share, rows)"),
    "ratio": ("학습 데이터 %", "training data %"),
    "winner": ("최종 후보", "winner"),
    "measured": ("측정값", "measured"),
    "candidate": ("다른 후보", "other candidates"),
    "stopped": ("탈락", "eliminated"),
    "failed": ("실패", "failed"),
    "baseline": ("단순 기준선", "trivial baseline"),
    "forecast": ("{at}에서 한 예측 ({level} 구간)", "forecast made at {at} ({level} interval)"),
    "loss": ("검증 손실", "eval loss"),
    "seconds": ("단계별 시간 (초)", "seconds per stage"),
    "memory": ("최대 메모리 (GiB)", "peak memory (GiB)"),
}
_FAILED = ("failed", "diverged")
_MOST_LABELS = 12
_SMALL = 7
"""Points of the letters where many stand side by side."""
_LABEL_GAP = 0.045
"""Height of a line of small text, as a share of the axis."""
_MOST_TICKS = 10
_LEAST_GAP = 0.05
_EDGE = 1.03
"""Height of what has none of its own: above the axes, where no score is."""
_NEAR = 0.02
"""Between a mark and its name, as a share of the axis."""
_ASIDE = 0.13
"""Inches between a forecast and its truth."""


def plot_progressive(target: Path | Drawing, results: ProgressiveResults) -> None:
    """Draw the picture: the metric over the rows above; loss, time and memory of each stage beneath.

    A picture is a PNG file or the drawing of a page; the study is finished or not.
    """
    words, strong = spoken(_WORDS, target), results.shown
    others = [row for row in results.candidates if row is not strong]
    metric = results.metric
    with_loss = metric != "eval_loss" and any(_scored(row.stages, "eval_loss") for row in (strong, *others))
    with picture(target, title=results.study, width=7.2, height=6.2) as figure:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.75, 1))[:, 0]
        axis = upper.subplots()
        _draw_metric(axis, results, strong, others, words)
        names = [*(["loss"] if with_loss else []), "seconds", "memory"]
        for name, panel in zip(names, lower.subplots(1, len(names), squeeze=False)[0], strict=True):
            panel.set_title(words[name], fontsize=9)
            panel.set_xlabel(words["ratio"])
            match name:
                case "loss":
                    _draw_losses(panel, strong, others)
                case "seconds":
                    _draw_bars(panel, strong, others, "seconds")
                case "memory":
                    _draw_bars(panel, strong, (), "peak_memory_mb", unit=1024)


def _scored(stages: Iterable[StageRecord], name: str = "") -> list[tuple[StageRecord, float]]:
    """Return the stages that measured a metric, or what compares them, with what they measured."""
    pairs = ((stage, stage.metrics.get(name) if name else stage.score) for stage in stages)
    return [(stage, value) for stage, found in pairs if (value := number(found)) is not None]


def _draw_metric(
    axis: Axes,
    results: ProgressiveResults,
    strong: CandidateRecord,
    others: Sequence[CandidateRecord],
    words: Mapping[str, str],
) -> None:
    metric = results.metric_named(results.metric)
    factor = 100 if metric.in_percent else 1
    ratios = _ratios(strong, *others)
    ends: list[tuple[float, float | None, str]] = []
    for place, row in enumerate(others):
        points = [(stage.num_rows, factor * score) for stage, score in _scored(row.stages)]
        if points:
            label = words["candidate"] if place == 0 else "_"
            axis.plot(
                *zip(*points, strict=True), color=GREY, linewidth=1, marker=".", markersize=4, label=label
            )
            ends.append((*points[-1], _candidate_label(row)))
            if row.state == "stopped":
                look: dict[str, Any] = {"marker": "s", "color": GREY, "markerfacecolor": "white", "zorder": 3}
                axis.plot(*points[-1], markersize=7, linestyle="none", label=words["stopped"], **look)
        if row.state in _FAILED and ratios:
            # Failing is no score: it stands above the axes, over the rows that were last seen.
            where = points[-1][0] if points else min(ratios)
            axis.plot(
                [where], [_EDGE], marker="X", markersize=8, color=VERMILION, linestyle="none",
                transform=axis.get_xaxis_transform(), label=words["failed"], zorder=3, clip_on=False,
            )  # fmt: skip
            ends.append((where, None, _candidate_label(row)))

    measured = [(stage.num_rows, factor * score) for stage, score in _scored(strong.stages)]
    if measured:
        axis.plot(
            *zip(*measured, strict=True), color=BLUE, linewidth=2.2, marker="o", markersize=6, zorder=4,
            label=f"{words['winner']}: {_candidate_label(strong)}" if others and results.winner else words["measured"],
        )  # fmt: skip
    if results.baseline is not None:
        height = factor * results.baseline
        axis.axhline(height, color="black", linewidth=1, linestyle=(0, (5, 3)), label=words["baseline"])
    _draw_forecast(axis, strong.stages, factor, words)

    if _is_crowded(ratios):
        axis.set_xscale("log")
        axis.minorticks_off()
    labels = [f"{percent(ratio)}\n{num_rows:,}" for num_rows, ratio in ratios.items()]
    axis.set_xticks(list(ratios), _thinned(labels))
    axis.set_xlabel(words["rows"])
    axis.set_ylabel(metric_label(metric))
    axis.margins(x=0.06, y=0.1)
    grid(axis)
    if len(ends) <= _MOST_LABELS:
        _label(axis, ends)


def _ratios(*rows: CandidateRecord) -> dict[int, float]:
    """Return the ratio of every number of rows that a candidate has seen or a forecast is for."""
    stages = [stage for row in rows for stage in row.stages]
    ratios: dict[int, float] = {}
    for stage in stages:
        if stage.forecast is not None:
            at_rows = stage.forecast.at_rows
            ratios[at_rows] = round(stage.ratio * at_rows / stage.num_rows, 2)
    return dict(sorted((ratios | {stage.num_rows: stage.ratio for stage in stages}).items()))


def _is_crowded(sizes: Iterable[int]) -> bool:
    """Return whether few sizes of the data are so far apart that the smallest would cover each other."""
    ordered = sorted(sizes)
    return 2 <= len(ordered) <= _MOST_TICKS and ordered[1] - ordered[0] < _LEAST_GAP * ordered[-1]


def _thinned(labels: Sequence[str]) -> list[str]:
    """Leave labels empty where there are too many to stand side by side; the last one always stays."""
    step = math.ceil(len(labels) / _MOST_TICKS) or 1
    return [label if (len(labels) - 1 - place) % step == 0 else "" for place, label in enumerate(labels)]


def _draw_forecast(
    axis: Axes, stages: Sequence[StageRecord], factor: float, words: Mapping[str, str]
) -> None:
    """Draw the first forecast as an interval, a little beside the truth that it is compared with."""
    from matplotlib.transforms import ScaledTranslation

    made = next(((stage, stage.forecast) for stage in stages if stage.forecast is not None), None)
    if made is None:
        return
    stage, forecast = made
    value, low, high = (factor * each for each in (forecast.value, forecast.low, forecast.high))
    # What is moved aside does not count for the limits of the axes by itself.
    axis.update_datalim([(forecast.at_rows, low), (forecast.at_rows, high)])
    aside = ScaledTranslation(_ASIDE, 0, axis.figure.dpi_scale_trans)
    axis.errorbar(
        [forecast.at_rows], [value], yerr=[[value - low], [high - value]],
        color=PURPLE, marker="D", markersize=6, capsize=5, linewidth=1.8, linestyle="none", zorder=5,
        transform=axis.transData + aside, label=words["forecast"].format(at=percent(stage.ratio), level=percent(forecast.level)),
    )  # fmt: skip


def _label(axis: Axes, ends: Sequence[tuple[float, float | None, str]]) -> None:
    """Write the candidates' names where they ended, moved up where they would cover each other."""
    axis.autoscale_view()
    to_axis = axis.transData + axis.transAxes.inverted()
    placed = []
    for across, height, text in ends:
        x, y = to_axis.transform((across, axis.get_ylim()[0] if height is None else height))
        placed.append((across, _EDGE if height is None else y, x, text))
    free: dict[float, float] = {}
    for across, y, x, text in sorted(placed):
        height = max(y, free.get(across, y))
        free[across] = height + _LABEL_GAP
        axis.text(
            x + _NEAR, height, text, transform=axis.transAxes, fontsize=_SMALL, color="#404040", va="center",
            zorder=3.5, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )  # fmt: skip


def _candidate_label(row: CandidateRecord) -> str:
    """Return what distinguishes the candidate from the others: its values."""
    values = {key.rpartition(".")[2]: verbatim(setting_text(value)) for key, value in row.values.items()}
    if len(values) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{key} {value}" for key, value in values.items()) or row.name


def _draw_losses(axis: Axes, strong: CandidateRecord, others: Sequence[CandidateRecord]) -> None:
    # Of a small table two ratios may be as many rows.
    own = (stage.ratio for row in (strong, *others) for stage in row.stages)
    ratios = sorted({*_ratios(strong, *others).values(), *own})
    for row in (*others, strong):
        points = [(ratios.index(stage.ratio), loss) for stage, loss in _scored(row.stages, "eval_loss")]
        if points:
            look: dict[str, Any] = {"color": BLUE, "linewidth": 2, "marker": "o", "markersize": 4}
            if row is not strong:
                look = {"color": GREY, "linewidth": 1, "marker": ".", "markersize": 4}
            axis.plot(*zip(*points, strict=True), **look)
    _mark_ratios(axis, ratios)
    axis.margins(x=0.08, y=0.12)
    grid(axis)


def _draw_bars(
    axis: Axes, strong: CandidateRecord, others: Sequence[CandidateRecord], name: str, *, unit: float = 1.0
) -> None:
    """Draw what the winner's stages took, and what the others took at the same ratio on top of it."""
    sums = [_sums(rows, name) for rows in ([strong], others)]
    ratios = sorted({*sums[0], *sums[1]})
    below = [0.0] * len(ratios)
    for each, color in zip(sums, (BLUE, PALE), strict=True):
        if each:
            heights = [each.get(ratio, 0.0) / unit for ratio in ratios]
            axis.bar(
                range(len(ratios)), heights, bottom=below, color=color, edgecolor="white", linewidth=0.4, width=0.75
            )  # fmt: skip
            below = heights
    _mark_ratios(axis, ratios)
    grid(axis)
    axis.grid(visible=False, axis="x")


def _mark_ratios(axis: Axes, ratios: Sequence[float]) -> None:
    """Name the ratios, which stand side by side however far apart they are."""
    axis.set_xticks(range(len(ratios)), _thinned([f"{100 * ratio:g}" for ratio in ratios]), fontsize=_SMALL)


def _sums(rows: Sequence[CandidateRecord], name: str) -> dict[float, float]:
    """Return per ratio what the candidates' stages add up to."""
    sums: dict[float, float] = {}
    for row in rows:
        for stage in row.stages:
            sums[stage.ratio] = sums.get(stage.ratio, 0.0) + getattr(stage, name)
    return sums
