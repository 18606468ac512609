"""What a sweep measured, and what it did not: whether a point won, by how much, and what its score is worth.

The rule. Points are ranked that completed, have a score, and whose learning rate rose above 0. The best of them is
the winner if it is better than the trivial baseline, and told apart from at least one other ranked point; else there
is no winner, and the configured values stay. Two points are told apart where the interval of their difference does
not hold 0:

* of a validation loss, the interval of the paired t-test over the losses of the same rows, as trials leave them;
* of a share, that of Agresti & Caffo (2000), "Simple and effective confidence intervals for proportions and
  differences of proportions". It is exact for hits. No mean of row scores between 0 and 1 varies more (Bhatia &
  Davis, 2000), so that it is wide for ROUGE. A macro F1 is no mean of rows, and rests on its rarest class: it is worth
  as many rows as ``rows_behind`` says;
* of everything else nothing is known, and only equal scores are not told apart.

The best of many is compared with all others, and which one it is was not known before. So the level of each interval
is that of Bonferroni over all pairs of points: all intervals together hold at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from dure.errors import counted
from dure.metrics.intervals import Interval, difference_of_shares, rows_behind, share_interval
from dure.metrics.metric import BASELINE, TEST, Direction, Metric, under
from dure.reporting.figures import metric_change, metric_figure, metric_phrase, number, some_names
from dure.reporting.verdicts import chosen_phrase, share_method
from dure.studies.results import Record, TrialRecord

if TYPE_CHECKING:
    from dure.studies.sweep.results import SweepPoint, SweepResults

LEVEL = 0.95
"""Probability that all intervals of a sweep hold together."""

Status = Literal["winner", "noise", "tie", "baseline", "no_step", "single", "nothing"]
Rule = Literal["paired losses", "binomial", "unknown"]
_HEADLINES: Mapping[Status, str] = {
    "winner": "{best} wins: {score}, {of_what}.",
    "noise": "{spread} {within}.",
    "tie": "all {count} points tie at {score}.",
    "baseline": "{best}, the best point, with {score}, is no better than the trivial baseline ({baseline}).",
    "no_step": "no point's learning rate ever rose above 0, so that nothing was trained. Shorten the warm-up or "
    "lengthen the trials.",
    "single": "one point has nothing to be better than ({score}).",
    "nothing": "no point completed with a score.",
}


class Gap(Record):
    """By how much the best point is better than another one, in the units of the metric."""

    value: float
    low: float | None
    """Where the interval of the difference begins; None where the noise of the rows is not known."""
    high: float | None

    @property
    def is_apart(self) -> bool:
        """Whether the two points are told apart."""
        return self.value > 0 if self.low is None else self.low > 0


class SweepVerdict(Record):
    """What a sweep measured; ``verdict`` of its record."""

    status: Status
    """``winner``; or why there is none: all points differ within the ``noise`` of the rows or ``tie``, the best is no
    better than the ``baseline``, ``no_step`` was taken above a learning rate of 0, a ``single`` point has nothing to be
    better than, ``nothing`` completed."""
    winner: str | None
    """The trial whose values are to be used; None where the configured ones stay."""
    best: str | None
    """The trial with the best score, whether or not that says anything."""
    metric: str
    direction: Direction
    score: float | None
    """That of the best, on the validation rows that chose it."""
    test_score: float | None
    """Its score on the test rows, which chose nothing; None without such rows."""
    interval: Interval | None
    """What the validation rows leave of the score of the best, for all ranked points at once."""
    baseline: float | None
    """Score of the trivial predictor."""
    rule: Rule
    """How the noise of the rows was measured."""
    num_rows: int | None
    """Validation rows of a trial."""
    level: float
    """Probability that all intervals hold together."""
    gaps: Mapping[str, Gap]
    """Every other ranked point to what the best has before it."""
    equals: tuple[str, ...]
    """Ranked points that are not told apart from the best."""
    below_baseline: tuple[str, ...]
    """Ranked points that are no better than the trivial predictor."""
    never_rose: tuple[str, ...]
    """Points whose learning rate never rose above 0; they are not ranked."""
    in_warmup: tuple[str, ...]
    """Ranked points that ended within their warm-up, below their learning rate."""
    is_rehearsal: bool
    """Whether miniatures trained, with learning rates of their own."""
    sentences: tuple[str, ...]
    """The verdict in plain English."""


def sweep_verdict(
    results: SweepResults,
    points: Sequence[SweepPoint],
    losses: Mapping[str, Sequence[float]],
) -> SweepVerdict:
    """Say what a sweep measured, by its first metric; the rule is that of this module.

    ``losses`` has the loss of every validation row by trial, in one order, of trials that left them.
    """
    metric = results.metric_named(results.metrics[0])
    trials = {trial.name: trial for trial in results.experiments}
    never_rose = tuple(point.trial for point in points if point.peak_rate == 0)
    scores = {
        point.trial: float(score)
        for point in points
        if point.state == "completed"
        and point.trial not in never_rose
        and isinstance(score := point.metrics.get(metric.name), int | float)
        and math.isfinite(score)
    }
    best = metric.best(scores)
    # Of trials that never trained as well, which have rows and a baseline all the same.
    about = next((trials[name].metrics for name in (best, *never_rose) if name is not None), {})
    num_rows = int(number(about.get("num_dev_rows")) or 0) or None
    rule = _rule(metric, scores, losses, num_rows)
    baseline = number(about.get(under(metric.name, BASELINE)))
    level = 1 - (1 - LEVEL) / max(1, math.comb(len(scores), 2))
    rows = {name: rows_behind(metric.name, trials[name].metrics, num_rows or 0) for name in scores}
    gaps = {
        name: _gap(metric, rule, (best, name), scores, losses, rows, level)
        for name in scores
        if best is not None and name != best
    }
    below = [
        name for name, score in scores.items() if baseline is not None and not metric.better(score, baseline)
    ]
    is_alone = not any(trial.state in ("stopped", "diverged") for trial in results.experiments)
    status = _status(best, gaps, below=below, never_rose=never_rose, is_alone=is_alone)
    verdict = SweepVerdict(
        status=status,
        winner=best if status == "winner" else None,
        best=best,
        metric=metric.name,
        direction="max" if metric.higher_is_better else "min",
        score=None if best is None else scores[best],
        test_score=None if best is None else number(about.get(under(metric.name, TEST))),
        interval=_interval(rule, best, scores, losses, rows),
        baseline=baseline,
        rule=rule,
        num_rows=num_rows,
        level=LEVEL,
        gaps=gaps,
        equals=tuple(name for name, gap in gaps.items() if not gap.is_apart),
        below_baseline=tuple(below),
        never_rose=never_rose,
        in_warmup=tuple(point.trial for point in points if point.in_warmup and point.trial in scores),
        is_rehearsal=results.is_rehearsal,
        sentences=(),
    )
    return verdict.with_values(sentences=sentences_of(verdict, metric, trials))


def mean_interval(values: Sequence[float], level: float) -> Interval:
    """Return the interval of Student's t of a mean; nothing but the number itself for equal values."""
    from scipy.stats import t as student_t

    numbers = np.asarray(values, dtype=np.float64)
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    half = float(student_t.ppf((1 + level) / 2, len(numbers) - 1)) * error
    return float(numbers.mean()) - half, float(numbers.mean()) + half


def _status(
    best: str | None,
    gaps: Mapping[str, Gap],
    *,
    below: Sequence[str],
    never_rose: Sequence[str],
    is_alone: bool,
) -> Status:
    if best is None:
        return "no_step" if never_rose else "nothing"
    if best in below:
        return "baseline"
    if not gaps:
        return "single" if is_alone else "winner"
    if any(gap.is_apart for gap in gaps.values()):
        return "winner"
    return "tie" if all(gap.value == 0 for gap in gaps.values()) else "noise"


def _rule(
    metric: Metric,
    scores: Mapping[str, float],
    losses: Mapping[str, Sequence[float]],
    num_rows: int | None,
) -> Rule:
    sizes = {len(losses.get(name, ())) for name in scores}
    if metric.name == "eval_loss" and len(sizes) == 1 and min(sizes) > 1:
        return "paired losses"
    is_share = metric.unit == "share" and all(0 <= score <= 1 for score in scores.values())
    return "binomial" if is_share and num_rows else "unknown"


def _gap(
    metric: Metric,
    rule: Rule,
    names: tuple[str, str],
    scores: Mapping[str, float],
    losses: Mapping[str, Sequence[float]],
    rows: Mapping[str, float],
    level: float,
) -> Gap:
    best, other = names
    value = metric.gain(scores[best], scores[other])
    low = high = None
    if value == 0:
        low = high = 0.0
    elif rule == "paired losses":
        low, high = mean_interval(np.subtract(losses[other], losses[best]), level)  # type: ignore[arg-type]
    elif rule == "binomial":
        ours, theirs = (scores[name] for name in (names if metric.higher_is_better else names[::-1]))
        low, high = difference_of_shares(ours, theirs, min(rows[best], rows[other]), level)
    return Gap(value=value, low=low, high=high)


def _interval(
    rule: Rule,
    best: str | None,
    scores: Mapping[str, float],
    losses: Mapping[str, Sequence[float]],
    rows: Mapping[str, float],
) -> Interval | None:
    level = 1 - (1 - LEVEL) / max(1, len(scores))
    if best is None or rule == "unknown":
        return None
    if rule == "binomial":
        return share_interval(scores[best], rows[best], level)
    return mean_interval(losses[best], level)


def sentences_of(verdict: SweepVerdict, metric: Metric, trials: Mapping[str, TrialRecord]) -> tuple[str, ...]:
    """Return what the verdict says: who won and by what, what is to be known of the others, what the score is worth."""
    told = [_headline(verdict, metric, trials)]
    if verdict.winner is not None:
        tied = [name for name in verdict.equals if verdict.gaps[name].value == 0]
        if tied:
            told.append(f"It ties with {some_names(tied)}: of equal points the first is taken.")
        if close := [name for name in verdict.equals if name not in tied]:
            told.append(f"It is not told apart from {some_names(close)}: {_within(verdict)}.")
    if verdict.status == "winner" and verdict.rule == "unknown":
        told.append(
            "How far the validation rows alone move this metric is not known: a small difference may be noise."
        )
    told += _of_points(verdict, metric)
    if any(gap.value > 0 for gap in verdict.gaps.values()):  # among equals nothing was chosen
        told.append(_worth(verdict, metric, trials))
    if verdict.is_rehearsal:
        told.append(
            "This was a rehearsal: the learning rates are those that the miniatures trained at, and say nothing about "
            "the real model."
        )
    return tuple(told)


def _headline(verdict: SweepVerdict, metric: Metric, trials: Mapping[str, TrialRecord]) -> str:
    count, all_points = len(verdict.gaps) + 1, len(trials)
    beside = f"; {counted(all_points - count, 'other')} cannot be compared" if all_points > count else ""
    of_what = f"the best of {counted(count, 'point')}{beside}"
    if count == 1:
        of_what = f"as the only one of {all_points} points that has a score at its end"
    told = _HEADLINES[verdict.status].format(
        best=verdict.best,
        score=metric_phrase(metric, verdict.score),
        count=count,
        of_what=of_what,
        spread=_spread(verdict, metric),
        within=_within(verdict),
        baseline=metric_figure(metric, verdict.baseline),
    )
    return told if verdict.status == "winner" else f"No winner: {told} The configured values stay."


def _spread(verdict: SweepVerdict, metric: Metric) -> str:
    widest = max((gap.value for gap in verdict.gaps.values()), default=0.0)
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
        told.append(f"No better than the trivial baseline ({figure}): {some_names(below)}.")
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
        told.append(
            f"Not ranked, since the learning rate never rose above 0: {some_names(verdict.never_rose)}."
        )
    if verdict.in_warmup:
        told.append(
            f"Ended within the warm-up, before the learning rate was reached: {some_names(verdict.in_warmup)}."
        )
    return told


def _worth(verdict: SweepVerdict, metric: Metric, trials: Mapping[str, TrialRecord]) -> str:
    """Say what the score of the best is worth, which was chosen for being the best."""
    score = metric_figure(metric, verdict.score)
    chosen = chosen_phrase(metric, verdict.score, len(verdict.gaps) + 1, verdict.test_score)
    told = f"{score} {chosen}"
    if verdict.test_score is not None:
        return f"{told}; on the test rows, which chose nothing, {verdict.best} has {metric_figure(metric, verdict.test_score)}."
    if verdict.interval is not None:
        low, high = (metric_figure(metric, end) for end in verdict.interval)
        method = "by Student's t"
        if verdict.rule == "binomial" and verdict.best and verdict.num_rows:
            behind = rows_behind(metric.name, trials[verdict.best].metrics, verdict.num_rows)
            method = share_method(behind, verdict.num_rows)
        interval = (
            f"its {100 * verdict.level:g} % interval on the validation rows, {method}, is {low} to {high}"
        )
        return f"{told}; there are no test rows, and {interval}."
    return f"{told}; there are no test rows that would say by how much."
