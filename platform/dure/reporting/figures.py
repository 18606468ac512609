"""How numbers are written for people: names, units and digits of metrics, and lengths of time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dure.metrics.metric import BASELINE, UNTRAINED, Metric, undeclared, under

DEFAULT_METRICS = ("eval_rouge1", "eval_rouge2", "eval_rougeL", "eval_rouge_sum")
"""Columns shown when a study does not say which."""

NOTHING = "–"
"""What stands where there is no number."""

Figure = float | int | str | None

_SMALLEST_PLAIN = 1e-3
_MOST_NAMES = 5
_NAMES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "rouge_sum": "ROUGE sum",
    "f1": "F1",
    "num_oom": "times out of memory",
    "cpu_percent": "CPU %",
    "rows_in_all": "train rows in all",
}
_NAME = re.compile(rf"(?:^|(?<=_))({'|'.join(sorted(_NAMES, key=len, reverse=True))})(_|$)")
_CLASS_FIGURE = re.compile(r"(\w+?)\[(.*)\]", re.DOTALL)


def metric_label(metric: Metric | str) -> str:
    """Return the heading of a metric, with its unit: ``eval_rouge1_recall`` → ``ROUGE-1 recall %``.

    Validation is what is shown nearly always, so its prefix is left out, except before the loss, since the
    training loss is shown beside it. Here and below, a name alone is a metric that nothing but its name is known of.
    """
    metric = _metric(metric)
    name = metric.name if metric.name == "eval_loss" else metric.name.removeprefix("eval_")
    if metric.unit == "memory":
        name = name.removesuffix("_mb")
    name = re.sub("^(test_)?num_", r"\1", _NAME.sub(lambda found: _NAMES[found[1]] + found[2], name))
    label = name.replace("_", " ")
    return f"{label} %" if metric.in_percent else label


def bare_label(metric: Metric | str) -> str:
    """Return the label of a metric without its unit."""
    return metric_label(metric).removesuffix(" %")


def class_figure(metric: str) -> tuple[str, str] | None:
    """Return figure and class of a metric on one class, ``eval_f1[positive]`` → ``(eval_f1, positive)``, else None."""
    found = _CLASS_FIGURE.fullmatch(metric)
    return None if found is None else (found[1], found[2])


def metric_figure(metric: Metric | str, value: Figure) -> str:
    """Return a metric's value without its unit.

    Percentages and speeds have 2 decimals, other fractions have 4, or an exponent where that would show nothing of
    them.
    """
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    metric = _metric(metric)
    if metric.in_percent:
        return f"{100 * value:.2f}"
    if metric.unit == "memory":
        return memory(value)
    if isinstance(value, int) or (metric.unit == "count" and value.is_integer()):
        return f"{value:,.0f}"
    if is_speed(metric.name) and value >= 1:
        return f"{value:,.2f}"
    return f"{value:.2e}" if 0 < abs(value) < _SMALLEST_PLAIN else f"{value:.4f}"


def metric_change(metric: Metric | str, value: Figure, before: Figure = 0.0) -> str:
    """Return by how much a metric changed, with its sign: in percentage points where it is shown in percent."""
    now, then = number(value), number(before)
    if now is None or then is None:
        return NOTHING
    metric = _metric(metric)
    if metric.unit == "count" and (now - then).is_integer():
        return f"{now - then:+,.0f}"
    return f"{100 * (now - then):+.2f}" if metric.in_percent else f"{now - then:+.4f}"


def metric_phrase(metric: Metric | str, value: Figure) -> str:
    """Return name, value and unit for use in a line of text: ``ROUGE-1 23.41 %``."""
    label, figure = metric_label(metric), metric_figure(metric, value)
    unit = " %" if label.endswith(" %") and number(value) is not None else ""
    return f"{label.removesuffix(' %')} {figure}{unit}"


def gains_of(figures: Mapping[str, Figure]) -> dict[str, dict[str, float]]:
    """Return by how much every validation figure is above the trivial baseline, and above the untrained model."""
    found: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        score = number(value) if key.startswith("eval_") else None
        for what, prefix in (("baseline", BASELINE), ("untrained", UNTRAINED)):
            before = number(figures.get(under(key, prefix)))
            if score is not None and before is not None:
                found.setdefault(key, {})[what] = score - before
    return found


def _metric(metric: Metric | str) -> Metric:
    return undeclared(metric) if isinstance(metric, str) else metric


def is_speed(metric: str) -> bool:
    """Return whether the metric says how fast something went, and not how well."""
    return metric.endswith(("_runtime", "_per_second", "_preparation_time"))


def number(value: Figure) -> float | None:
    """Return the value when it is a number that can be compared, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def duration(seconds: float | None) -> str:
    """Return seconds as a clock shows them: ``0:07``, ``12:34``, ``1:02:03``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def memory(megabytes: float | None) -> str:
    """Return an amount of memory, given in MiB, as all tables and pictures have it: ``512 MiB``, ``1.28 GiB``."""
    if megabytes is None:
        return NOTHING
    return f"{megabytes / 1024:.2f} GiB" if megabytes >= 1024 else f"{megabytes:.0f} MiB"


def percent(share: float) -> str:
    """Return a share of the whole: ``12.5 %``."""
    return f"{100 * share:g} %"


def setting_text(value: object) -> str:
    """Return the value of a setting, short enough for a table."""
    if value is None:
        return NOTHING
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.3g}"
    # What is no whole number must not become one, as a decay of 0.9999 would.
    return f"{value:g}" if float(short).is_integer() and not value.is_integer() else short


def study_title(name: str, parts: Sequence[str], seconds: float, state: str) -> str:
    """Return the line above a study's tables: its name, what it consists of, how long it took and how it ended."""
    end = "" if state == "completed" else f" · {state}"
    return f"{name} · {', '.join(parts)} in {duration(seconds)}{end}"


def some_names(names: Sequence[str]) -> str:
    """Return names as a sentence has them: ``a, b and c``, of many ``a, b, c, d and 3 more``."""
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def error_notes(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on every trial of a record that has an error."""
    return [f"{each['name']} {each['state']}: {each['error']}" for each in trials if each.get("error")]
