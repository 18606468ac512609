"""The table of a study's trials while they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from dure.events import TrialState, TrialStatus
from dure.reporting.columns import STATE_STYLES, Column, FittedTable, column
from dure.reporting.figures import NOTHING, duration, metric_figure, metric_label

_URGENCY: tuple[TrialState, ...] = (
    *("running", "failed", "interrupted", "diverged", "pending", "stopped", "completed"),
)
_HEAD_LINES = 5
_SHORTEST_NAME = 18


def trial_table(
    trials: Sequence[TrialStatus],
    metrics: Sequence[str],
    waited: Mapping[str, float],
    *,
    height: int,
) -> FittedTable:
    """Return the table of trials, as wide and high as there is room for.

    What does not fit is left out whole: columns from the least important one, and rows of trials that are
    not running, which are then counted.

    ``waited`` are seconds since each trial was last heard of; they count as run. ``height`` is in lines.
    """
    rows = _most_urgent(trials, max(1, height - _HEAD_LINES))
    hidden = len(trials) - len(rows)
    return FittedTable(_columns(rows, metrics, waited), notes=[f"… and {hidden} more"] if hidden else [])


def _columns(
    trials: Sequence[TrialStatus], metrics: Sequence[str], waited: Mapping[str, float]
) -> list[Column]:
    def metric_column(metric: str, rank: int) -> Column:
        figures = (metric_figure(metric, trial.metrics.get(metric)) for trial in trials)
        return column(metric_label(metric), figures, rank)

    def unheard(trial: TrialStatus) -> float:
        return waited.get(trial.name, 0.0) if trial.state == "running" else 0.0

    def step(trial: TrialStatus) -> str:
        return f"{trial.step}/{trial.total_steps}" if trial.total_steps else NOTHING

    def spent(trial: TrialStatus) -> str:
        return NOTHING if trial.state == "pending" else duration(trial.seconds + unheard(trial))

    def left(trial: TrialStatus) -> str:
        seconds = trial.seconds_left
        return duration(None if seconds is None else max(0.0, seconds - unheard(trial)))

    def state(trial: TrialStatus) -> Text:
        shown: str = trial.state
        if trial.state == "running":
            shown = trial.stage or ("running" if trial.step or trial.total_steps else "loading")
        return Text(shown, style="dim" if trial.restored else STATE_STYLES[trial.state])

    return [
        column("trial", (trial.name for trial in trials), is_text=True, shortest=_SHORTEST_NAME),
        column("state", map(state, trials), 1, is_text=True),
        column("step", map(step, trials), 4),
        column("epoch", (f"{trial.epoch:.2f}" if trial.step else NOTHING for trial in trials), 7),
        metric_column("loss", 5),
        *(metric_column(metric, 10 + place if place else 2) for place, metric in enumerate(metrics)),
        column("time", map(spent, trials), 6),
        column("left", map(left, trials), 3),
    ]


def _most_urgent(trials: Sequence[TrialStatus], count: int) -> list[TrialStatus]:
    """Return at most ``count`` trials in their order, those that a watcher needs least left out."""
    if len(trials) <= count:
        return list(trials)
    by_urgency = sorted(range(len(trials)), key=lambda place: _URGENCY.index(trials[place].state))
    return [trials[place] for place in sorted(by_urgency[:count])]
