"""Targets in words: met, or missed by how much."""

from __future__ import annotations

from collections.abc import Iterable

from dure.metrics.metric import Metric
from dure.metrics.targets import Reached
from dure.reporting.figures import metric_figure, metric_phrase


def target_line(reached: Reached) -> str:
    """Return a target beside a validation while a run goes on: ``target macro F1 94.00 %: short by 2.80 points``."""
    by = " by a miniature" if reached.is_rehearsal and reached.met else ""
    return f"target {metric_phrase(_metric(reached), reached.target)}: {_came(reached)}{by}"


def target_sentence(reached: Reached) -> str:
    """Return whether a target was met in the end, in a sentence."""
    metric = _metric(reached)
    bound = "at least" if metric.higher_is_better else "at most"
    asked = f"{bound} {metric_phrase(metric, reached.target)}"
    of = f" {reached.of} has" if reached.of else " it is"
    if reached.score is None:
        return f"Target missed: {asked}, and there is no such score."
    score = metric_figure(metric, reached.score) + (" %" if metric.in_percent else "")
    verdict = "met" if reached.met else "missed"
    if reached.is_rehearsal:
        verdict += " by a miniature, which says nothing of the model that it is of"
    return f"Target {verdict}: {asked};{of} {score}{'' if reached.met else f', {_came(reached)}'}."


def missed(targets: Iterable[Reached]) -> str:
    """Return in a sentence which targets were missed; nothing when all were met."""
    names = [metric_phrase(_metric(each), each.target) for each in targets if not each.met]
    return f"--require-targets: missed {', '.join(names)}" if names else ""


def _came(reached: Reached) -> str:
    if reached.met:
        return "met"
    if reached.short_by is None:
        return "no score"
    metric = _metric(reached)
    points = " percentage points" if metric.in_percent else ""
    return f"short by {metric_figure(metric, reached.short_by)}{points}"


def _metric(reached: Reached) -> Metric:
    return Metric(reached.metric, reached.direction, reached.unit)
