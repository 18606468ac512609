"""What a comparison of two models says, in a sentence."""

from __future__ import annotations

from dure.errors import counted
from dure.metrics.metric import Metric
from dure.metrics.paired import Difference, PairedDifference, Verdict
from dure.reporting.figures import bare_label, metric_figure

_SMALLEST_P = 1e-4


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
