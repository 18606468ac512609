"""The verdict of a sweep in plain English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dure.metrics.metric import Metric
from dure.reporting.figures import counted, metric_change, metric_figure, metric_phrase
from dure.studies.results import TrialRecord
from dure.studies.sweep.verdict import SweepVerdict

_MOST_NAMES = 4


def sentences_of(verdict: SweepVerdict, metric: Metric, trials: Mapping[str, TrialRecord]) -> tuple[str, ...]:
    """Return what the verdict says: who won and by what, what is to be known of the others, what the score is worth."""
    told = [_headline(verdict, metric, trials)]
    if verdict.winner is not None and verdict.equals:
        told.append(f"It is not told apart from {named(verdict.equals)}: {_within(verdict)}.")
    if verdict.status == "winner" and verdict.rule == "unknown":
        told.append(
            "How far the validation rows alone move this metric is not known: a small difference may be noise."
        )
    told += _of_points(verdict, metric)
    if verdict.score is not None and verdict.status != "single":
        told.append(_worth(verdict, metric))
    if verdict.is_rehearsal:
        told.append(
            "This was a rehearsal: the learning rates are those that the miniatures trained at, and say nothing about "
            "the real model."
        )
    return tuple(told)


def named(names: Sequence[str]) -> str:
    """Return names as a sentence has them: ``trial_000, trial_001 and 3 more``."""
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _headline(verdict: SweepVerdict, metric: Metric, trials: Mapping[str, TrialRecord]) -> str:
    stays = "The configured values stay."
    num_ranked = len(verdict.gaps) + 1
    score = metric_phrase(metric, verdict.score)
    match verdict.status:
        case "winner":
            others = len(trials) - num_ranked
            beside = f"; {counted(others, 'other')} cannot be compared" if others else ""
            return f"{verdict.winner} wins: {score}, the best of {counted(num_ranked, 'point')}{beside}."
        case "tie":
            return f"No winner: all {num_ranked} points tie at {score}. {stays}"
        case "noise":
            return f"No winner: {_spread(verdict, metric)} {_within(verdict)}. {stays}"
        case "baseline":
            baseline = metric_figure(metric, verdict.baseline)
            return (
                f"No winner: {verdict.best}, the best point, with {score}, is no better than the trivial baseline "
                f"({baseline}). {stays}"
            )
        case "no_step":
            return (
                "No winner: no point's learning rate ever rose above 0, so that nothing was trained. Shorten the "
                f"warm-up or lengthen the trials. {stays}"
            )
        case "single":
            return f"No winner: one point has nothing to be better than ({score}). {stays}"
        case "nothing":
            return f"No winner: no point completed with a score. {stays}"


def _spread(verdict: SweepVerdict, metric: Metric) -> str:
    widest = max(gap.value for gap in verdict.gaps.values())
    unit = " percentage points" if metric.in_percent else ""
    change = metric_change(metric, widest).removeprefix("+")
    return f"the {len(verdict.gaps) + 1} points differ by at most {change}{unit},"


def _within(verdict: SweepVerdict) -> str:
    rows = "" if verdict.num_rows is None else f" of {counted(verdict.num_rows, 'validation row')}"
    if verdict.rule == "unknown":
        return "they tie"
    how = "the same rows compared" if verdict.rule == "paired losses" else "binomial"
    return f"within the noise{rows} ({how}, {100 * verdict.level:g} % for all points at once)"


def _of_points(verdict: SweepVerdict, metric: Metric) -> list[str]:
    """Say what is to be known of single points."""
    told = []
    below = [name for name in verdict.below_baseline if name != verdict.best]
    if below:
        figure = metric_figure(metric, verdict.baseline)
        told.append(f"No better than the trivial baseline ({figure}): {named(below)}.")
    if (
        verdict.baseline is not None
        and verdict.status != "baseline"
        and verdict.interval is not None
        and verdict.interval[0] <= verdict.baseline <= verdict.interval[1]
    ):
        told.append(
            f"Not even the best, {verdict.best}, is certainly better than the trivial baseline "
            f"({metric_figure(metric, verdict.baseline)}).",
        )
    if verdict.never_rose and verdict.status != "no_step":
        told.append(f"Not ranked, since the learning rate never rose above 0: {named(verdict.never_rose)}.")
    if verdict.in_warmup:
        told.append(
            f"Ended within the warm-up, before the learning rate was reached: {named(verdict.in_warmup)}."
        )
    return told


def _worth(verdict: SweepVerdict, metric: Metric) -> str:
    """Say what the score of the best is worth, which was chosen for being the best."""
    score = metric_figure(metric, verdict.score)
    told = f"{score} is flattered, since it was chosen as the best of {len(verdict.gaps) + 1}"
    if verdict.test_score is not None:
        return f"{told}; on the test rows, which chose nothing, {verdict.best} has {metric_figure(metric, verdict.test_score)}."
    if verdict.interval is not None:
        low, high = (metric_figure(metric, end) for end in verdict.interval)
        interval = f"its {100 * verdict.level:g} % interval on the validation rows is {low} to {high}"
        return f"{told}; there are no test rows, and {interval}."
    return f"{told}; there are no test rows that would say by how much."
