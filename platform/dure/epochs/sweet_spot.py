"""Sweet spots: the epoch at which each module of a model was at its best, by several judges and their vote.

Every judgement of an epoch looks back only, at the epochs before it, so that it is the same while training and
afterwards; what is *low* is the exception, since a later epoch may be lower.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import pstdev
from typing import Any, Literal, NamedTuple

from dure.epochs.loss_series import Point, Series

CRITERIA = ("low", "stable", "fitting", "converged")
VOTERS = ("lowest", "criteria", "plateau", "score")
_LOW_WEIGHT = 0.4
"""Of being low in the score, beside the other criteria."""

Direction = Literal["falling", "rising", "level", "diverged", "too_few_epochs"]
Verdict = Literal["found", "too_few_epochs", "none"]


@dataclass(frozen=True)
class Thresholds:
    """Where the criteria draw their lines."""

    window: int = 5
    """Validations that stability and convergence look at: the epoch's own and those before it."""
    max_std: float = 0.01
    """A stable window's standard deviation (of the population) is below it."""
    max_gap: float = 0.1
    """Validation loss minus training loss is below it where a module does not overfit."""
    max_change: float = 0.01
    """A converged window's last loss differs from its first by less than this share of the first."""
    low_within: float = 0.02
    """A loss is low when it exceeds the lowest by at most this."""
    trend_window: int = 8
    """Validations that the Mann–Kendall test looks at."""
    trend_level: float = 0.05
    """A trend is significant when its probability without one is below this."""
    vote_reach: int = 2
    """Voters that name epochs at most so far apart support each other."""


DEFAULT = Thresholds()


@dataclass(frozen=True)
class SweetSpot:
    """What was found of one module."""

    verdict: Verdict
    """``found``; ``too_few_epochs`` where no window of validations is full, so that two of the voters cannot vote and
    the epoch is no more than the one of the lowest loss; ``none`` without an epoch."""
    epoch: int | None
    """The epoch that the vote chose; None when no saved epoch has a finite validation loss."""
    confidence: float | None
    """Share of the voters that named it, or an epoch close by; None where there are too few epochs."""
    votes: dict[str, int | None]
    """Voter → the epoch that it named; None when no epoch is what it looks for."""
    met: dict[str, tuple[int, ...]]
    """Criterion → epochs that meet it, unsaved ones included."""
    scores: dict[int, float]
    """Epoch → its score, 0 to 1."""
    eval_loss: float | None
    train_loss: float | None
    trend: Direction
    """Where the validation loss was going when the series ended; ``too_few_epochs`` to say."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data; epochs that are keys become text."""
        return {
            **asdict(self),
            "met": {name: list(epochs) for name, epochs in self.met.items()},
            "scores": {str(epoch): round(score, 6) for epoch, score in self.scores.items()},
        }


def epochs_that_meet(series: Series, thresholds: Thresholds = DEFAULT) -> dict[str, tuple[int, ...]]:
    """Return the epochs that meet each criterion, by its name.

    ``low``: the validation loss is near the lowest of the series. ``stable`` and ``converged``: over the window that
    ends there it hardly varies, and hardly changes. ``fitting``: no overfitting; an epoch whose training loss is not
    known is not said to. ``plateau``: the Mann–Kendall test finds no trend in the window that ends there.
    """
    finite, windows = _finite(series), list(_windows(series, thresholds.window))
    highest = min((point.eval_loss for point in finite), default=math.nan) + thresholds.low_within
    return {
        "low": tuple(point.epoch for point in finite if point.eval_loss <= highest),
        "stable": tuple(epoch for epoch, window in windows if pstdev(window) < thresholds.max_std),
        "fitting": tuple(point.epoch for point in finite if _gap(point) < thresholds.max_gap),
        "converged": tuple(epoch for epoch, window in windows if _change(window) < thresholds.max_change),
        "plateau": tuple(
            epoch
            for epoch, window in _windows(series, thresholds.trend_window)
            if mann_kendall(window).p_value >= thresholds.trend_level
        ),
    }


def epoch_scores(series: Series, thresholds: Thresholds = DEFAULT) -> dict[int, float]:
    """Return how well each epoch meets all criteria together, 0 to 1.

    A criterion counts 1 where it is met perfectly, ½ at its threshold, and ever less beyond it; 0 where there are too
    few epochs to judge. The score is ``low**0.4 * rest**0.6``, where ``rest`` is the mean of the three criteria besides
    *low*. So the order of two epochs never depends on a third, as it would in a sum.
    """
    merits = _merits(series, thresholds)
    lowest = min((point.eval_loss for point in _finite(series)), default=math.nan)
    return {
        epoch: 2.0 ** (merit + _LOW_WEIGHT * lowest / thresholds.low_within)
        for epoch, merit in merits.items()
    }


def sweet_spot(
    series: Series, thresholds: Thresholds = DEFAULT, *, saved: Collection[int] | None = None
) -> SweetSpot:
    """Say at which epoch a module was at its best.

    Four voters name an epoch each: the *lowest* validation loss; the lowest of those that meet all *criteria*; the
    first on a *plateau* that is low, since what comes later only overfits more; the best *score*. The epoch with most
    support wins, the one with the better score among equals.

    Args:
        series: The module's losses.
        thresholds: Where the criteria draw their lines.
        saved: Epochs whose weights are there; only they are named. All are when not given.
    """
    met = epochs_that_meet(series, thresholds)
    merits = _merits(series, thresholds)
    plateau = set(met["plateau"]) & set(met["low"])
    points = [point for point in _finite(series) if saved is None or point.epoch in saved]
    good = [point for point in points if all(point.epoch in met[name] for name in CRITERIA)]
    named = {
        "lowest": min(points, key=_loss, default=None),
        "criteria": min(good, key=_loss, default=None),
        "plateau": next((point for point in points if point.epoch in plateau), None),
        "score": min(points, key=lambda point: (-merits[point.epoch], *_loss(point)), default=None),
    }
    votes = {voter: None if point is None else point.epoch for voter, point in named.items()}

    def support(point: Point) -> int:
        near = [vote for vote in votes.values() if vote is not None]
        return sum(abs(vote - point.epoch) <= thresholds.vote_reach for vote in near)

    nominees = [point for point in named.values() if point is not None]
    chosen = min(
        nominees,
        key=lambda point: (-support(point), -merits[point.epoch], *_loss(point)),
        default=None,
    )
    is_judged = len(_finite(series)) >= thresholds.window
    verdict: Verdict = "none" if chosen is None else "found" if is_judged else "too_few_epochs"
    confidence = 0.0 if chosen is None else support(chosen) / len(VOTERS)
    return SweetSpot(
        verdict=verdict,
        epoch=None if chosen is None else chosen.epoch,
        confidence=None if verdict == "too_few_epochs" else confidence,
        votes=votes,
        met=met,
        scores=epoch_scores(series, thresholds),
        eval_loss=None if chosen is None else chosen.eval_loss,
        train_loss=None if chosen is None or _gap(chosen) == -math.inf else chosen.train_loss,
        trend=_trend(series, thresholds),
    )


def candidate_epochs(
    series: Series, thresholds: Thresholds = DEFAULT, *, saved: Collection[int] | None = None
) -> tuple[int, ...]:
    """Return the epochs that may yet be a module's sweet spot, whatever the epochs to come bring.

    An epoch that is no candidate never becomes one again: its weights can be deleted. Three of the voters only ever
    turn to a later epoch. The fourth goes back to none but this kind: an early epoch of a plateau leaves the low ones
    before a lower, later one does, so that an epoch counts that is lower than all of the plateau before it.
    """
    found = sweet_spot(series, thresholds, saved=saved)
    candidates = {epoch for epoch in found.votes.values() if epoch is not None}
    plateau = set(found.met["plateau"]) & set(found.met["low"])
    lowest_before = math.inf
    for point in _finite(series):
        is_saved = saved is None or point.epoch in saved
        if is_saved and point.epoch in plateau and point.eval_loss < lowest_before:
            lowest_before = point.eval_loss
            candidates.add(point.epoch)
    return tuple(sorted(candidates))


def analysis_record(
    series: Mapping[str, Series], thresholds: Thresholds = DEFAULT, *, saved: Collection[int] | None = None
) -> dict[str, Any]:
    """Return an analysis as JSON-ready data: thresholds, and per module its sweet spot and its series.

    Arguments are those of :func:`sweet_spot`.
    """
    return {
        "thresholds": asdict(thresholds),
        "voters": list(VOTERS),
        "modules": {
            name: {
                **sweet_spot(points, thresholds, saved=saved).as_dict(),
                "series": [_record(point) for point in points],
            }
            for name, points in series.items()
        },
    }


def _record(point: Point) -> dict[str, float | int | None]:
    values: dict[str, float | int | None] = point._asdict()
    return {
        name: value if value is not None and math.isfinite(value) else None for name, value in values.items()
    }


def _finite(series: Series) -> list[Point]:
    return [point for point in series if math.isfinite(point.eval_loss)]


def _loss(point: Point) -> tuple[float, int]:
    """Order by loss, the earlier epoch among equals."""
    return point.eval_loss, point.epoch


def _windows(series: Series, length: int) -> Iterator[tuple[int, list[float]]]:
    """Give every epoch that ends ``length`` finite validations in a row, with their losses.

    A missing epoch is passed over; a loss that is not finite is a divergence, and no window holds one.
    """
    for end in range(length, len(series) + 1):
        losses = [point.eval_loss for point in series[end - length : end]]
        if all(map(math.isfinite, losses)):
            yield series[end - 1].epoch, losses


def _gap(point: Point) -> float:
    known = point.train_loss is not None and math.isfinite(point.train_loss)
    return point.eval_loss - (point.train_loss or 0.0) if known else -math.inf


def _change(losses: Sequence[float]) -> float:
    change = abs(losses[-1] - losses[0])
    if change == 0:
        return 0.0
    return change / abs(losses[0]) if losses[0] else math.inf


def _degree(excess: float, threshold: float) -> float:
    """Return 1 where there is no excess, ½ at the threshold, and less beyond it."""
    return 1.0 if excess <= 0 else threshold / (threshold + excess)


def _merits(series: Series, thresholds: Thresholds) -> dict[int, float]:
    """Return what orders epochs as their scores do, without the lowest loss, which later epochs may change."""
    windows = dict(_windows(series, thresholds.window))
    merits = {}
    for point in _finite(series):
        window = windows.get(point.epoch)
        rest = (
            _degree(_gap(point), thresholds.max_gap)
            + (0.0 if window is None else _degree(pstdev(window), thresholds.max_std))
            + (0.0 if window is None else _degree(_change(window), thresholds.max_change))
        ) / 3
        low = -_LOW_WEIGHT * point.eval_loss / thresholds.low_within
        merits[point.epoch] = low + (1 - _LOW_WEIGHT) * (math.log2(rest) if rest else -math.inf)
    return merits


def _trend(series: Series, thresholds: Thresholds) -> Direction:
    if series and not math.isfinite(series[-1].eval_loss):
        return "diverged"
    losses = [point.eval_loss for point in _finite(series)][-thresholds.trend_window :]
    if len(losses) < thresholds.trend_window:
        return "too_few_epochs"
    s, p_value = mann_kendall(losses)
    if p_value >= thresholds.trend_level:
        return "level"
    return "falling" if s < 0 else "rising"


class Trend(NamedTuple):
    """What the test says of a series."""

    s: int
    """Pairs that rise minus pairs that fall."""
    p_value: float
    """Probability of such an ``s``, or one further from 0, when the order means nothing; two-sided."""


def mann_kendall(values: Sequence[float]) -> Trend:
    """Test a series for a trend (Mann, 1945; Kendall, 1975, "Rank Correlation Methods").

    The probability is exact when all values differ. With ties it is that of the normal distribution, with Kendall's
    variance for ties and the correction for continuity.

    Raises:
        ValueError: A value is not finite.
    """
    from scipy.stats import kendalltau

    if not all(map(math.isfinite, values)):
        raise ValueError(f"{list(values)} are not all finite")
    length = len(values)
    s = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    ties = [count for count in Counter(values).values() if count > 1]
    if s == 0:
        return Trend(0, 1.0)
    if not ties:
        return Trend(s, float(kendalltau(range(length), values, method="exact").pvalue))
    variance = (
        length * (length - 1) * (2 * length + 5) - sum(tie * (tie - 1) * (2 * tie + 5) for tie in ties)
    ) / 18
    return Trend(s, math.erfc((abs(s) - 1) / math.sqrt(2 * variance)))
