"""What the figures of a run, and a comparison of two models, say in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from numpy.typing import ArrayLike

from dure.errors import counted
from dure.metrics.intervals import Interval, rows_behind, share_interval
from dure.metrics.metric import BASELINE, TEST, Metric, under
from dure.metrics.paired import LEVEL, Difference, PairedDifference, Verdict, bootstrap_interval
from dure.reporting.figures import (
    Figure,
    bare_label,
    metric_change,
    metric_figure,
    metric_phrase,
    number,
)

_SMALLEST_P = 1e-4


def run_sentences(
    metric: Metric, figures: Mapping[str, Figure], test_scores: ArrayLike | None = None
) -> list[str]:
    """Return what the figures of a run are worth: on how many rows, against the trivial baseline, on test rows.

    ``figures`` are what ``result.json`` has as ``metrics``. ``test_scores`` is what every test row adds to the metric, of
    shape (rows,), where the metric is the mean of that.
    """
    score = number(figures.get(metric.name))
    if score is None:
        return [f"It has no {metric_phrase(metric, None).partition(' –')[0]}: nothing was validated."]
    rows, test_rows = (int(number(figures.get(f"num_{each}_rows")) or 0) for each in ("dev", "test"))
    interval, how = _interval(metric, metric.name, figures, rows)
    told = [
        f"{metric_phrase(metric, score)} on {counted(rows, 'validation row')}, which chose the checkpoint{how}."
    ]
    baseline = number(figures.get(under(metric.name, BASELINE)))
    if baseline is not None:
        told.append(_beside_baseline(metric, score, baseline, interval))
    tested = number(figures.get(under(metric.name, TEST)))
    if tested is None:
        told.append("No test rows say what the score is worth that the validation rows chose.")
        return told
    on = counted(test_rows, "test row") if test_rows else "the test rows"
    interval, how = _interval(metric, under(metric.name, TEST), figures, test_rows, test_scores)
    told.append(f"On {on}, which chose nothing: {metric_phrase(metric, tested)}{how}.")
    trivial = number(figures.get(under(metric.name, BASELINE + TEST)))
    if trivial is not None:
        told[-1] += f" {_beside_baseline(metric, tested, trivial, interval)}"
    return told


def _interval(
    metric: Metric,
    name: str,
    figures: Mapping[str, Figure],
    num_rows: int,
    row_scores: ArrayLike | None = None,
) -> tuple[Interval | None, str]:
    """Return what rows leave open of a figure, and that in words; nothing where it is not known."""
    score = number(figures.get(name))
    if row_scores is not None:
        interval, method = bootstrap_interval(row_scores), "by bootstrap over rows"
    elif metric.unit == "share" and score is not None and 0 <= score <= 1 and num_rows:
        behind = rows_behind(name, figures, num_rows)
        interval, method = share_interval(score, behind, LEVEL), share_method(behind, num_rows)
    else:
        return None, ""
    low, high = (metric_figure(metric, end) for end in interval)
    return interval, f"; its {100 * LEVEL:g} % interval, {method}, is {low} to {high}"


def share_method(behind: float, num_rows: float) -> str:
    """Return how the interval of a share was computed, which is worth the hits of ``behind`` rows."""
    if behind < num_rows:
        return f"as of hits in {behind:,.0f} rows, since classes are rare (Wilson)"
    return "as of a share of hits (Wilson)"


def _beside_baseline(metric: Metric, score: float, baseline: float, interval: Interval | None) -> str:
    change = metric_change(metric, score, baseline)
    unit = " percentage points" if metric.in_percent else ""
    told = f"The trivial baseline has {metric_phrase(metric, baseline)}"
    if metric.direction is None:
        return f"{told}: a difference of {change}{unit}."
    if score == baseline:
        return f"{told} as well: nothing was learned that it does not know."
    verdict = "better" if metric.better(score, baseline) else "worse, so nothing useful was learned"
    if interval is not None and interval[0] <= baseline <= interval[1]:
        verdict = f"{verdict.partition(',')[0]}, which is within the interval and no certain difference"
    return f"{told}: the model is {change.lstrip('+-')}{unit} {verdict}."


def difference_sentence(first: str, second: str, difference: PairedDifference, metric: Metric) -> str:
    """Return what :func:`verdict_sentence` says of rows that both models scored, by one seed or by several."""
    seeds = f" and {counted(difference.num_seeds, 'seed')}" if difference.num_seeds > 1 else ""
    rows = f"{counted(difference.num_rows, 'row')}{seeds}"
    if difference.num_rows == 1 and seeds:  # a score for each seed, such as a mean over rows
        rows = counted(difference.num_seeds, "seed")
    how = f"Student's t over {rows}, " if seeds else f"paired bootstrap over {rows}, permutation test "
    if difference.low == difference.high:
        how = f"permutation test over {rows}, "
    how += p_value_text(difference.p_value, difference.p_holm)
    return verdict_sentence(first, second, difference, difference.verdict, metric, over=rows, how=how)


def share_sentence(first: str, second: str, gain: Difference, num_rows: int, metric: Metric) -> str:
    """Return what :func:`verdict_sentence` says of a difference that has an interval over rows and no test."""
    said: Verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "tie"
    rows = counted(num_rows, "row")
    how = f"paired bootstrap over {rows}"
    return verdict_sentence(first, second, gain, said, metric, over=rows, how=how)


def verdict_sentence(
    first: str, second: str, gain: Difference, verdict: Verdict, metric: Metric, *, over: str, how: str
) -> str:
    """Return who is better, by how much, how sure that is and by which method; of a tie, that it is one.

    ``gain`` is by how much the first is better, ``over`` what it is a mean of, in words.
    """
    by_what, points = bare_label(metric), " points" if metric.in_percent else ""
    if verdict == "equal":
        return f"{first} and {second} have the same {by_what} on every one of {over}."
    if verdict == "tie":
        return (
            f"{first} and {second} cannot be told apart by {by_what}: {signed_figure(metric, gain.value)}{points}, "
            f"{interval_text(gain, metric)} ({how})."
        )
    if verdict == "worse":
        first, second, gain = second, first, gain.reversed()
    return (
        f"{first} is better than {second} by {metric_figure(metric, gain.value)}{points} of {by_what}, "
        f"{interval_text(gain, metric, is_signed=False)} ({how})."
    )


def chosen_phrase(metric: Metric, score: float | None, num_choices: int, tested: float | None) -> str:
    """Return what a score went through that the validation rows chose; flattered, unless it has no less on the test rows."""
    chosen = f"was chosen as the best of {num_choices}"
    is_borne_out = tested is not None and not metric.better(score, tested)
    return chosen if is_borne_out else f"is flattered, since it {chosen}"


def interval_text(difference: Difference, metric: Metric, *, is_signed: bool = True) -> str:
    """Return the interval of a difference in words; of what never differed otherwise there is none."""
    if difference.low == difference.high:
        return "the same each time"
    shown = signed_figure if is_signed else metric_figure
    return f"{difference.level * 100:g} % between {shown(metric, difference.low)} and {shown(metric, difference.high)}"


def signed_figure(metric: Metric, value: float) -> str:
    """Return a difference of a metric with its sign, in percentage points where the metric is shown in percent."""
    return f"{'-' if value < 0 else '+' if value > 0 else ''}{metric_figure(metric, abs(value))}"


def p_value_text(p_value: float | None, p_holm: float | None) -> str:
    """Return the p-value of a comparison, and whether it is corrected for the number of comparisons."""
    known = p_value if p_holm is None else p_holm
    if known is None:
        return "not tested"
    figure = f"p < {_SMALLEST_P:g}" if known < _SMALLEST_P else f"p = {known:.2g}"
    return figure if p_holm is None else f"{figure} by Holm"
