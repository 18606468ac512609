"""Progress of a study or a run on the console: a live block on a terminal, sparse plain lines elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, TextIO

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dure.errors import counted, shown_path
from dure.events import Notify, RunListener, RunProgress, RunStart, StudyListener, TrialState, TrialStatus
from dure.metrics.metric import TEST, UNTRAINED, under
from dure.reporting.columns import GAP, STATE_STYLES, Column, FittedTable, column, fitting
from dure.reporting.figures import (
    DEFAULT_METRICS,
    NOTHING,
    Figure,
    class_figure,
    duration,
    is_speed,
    metric_figure,
    metric_label,
    metric_phrase,
)
from dure.reporting.terminal import Terminal
from dure.runs.folder import RunResult

PROGRESS_SECONDS = 10.0
"""Least time between two plain lines on the progress of one trial; validations are always shown."""

_URGENCY: tuple[TrialState, ...] = (
    *("running", "failed", "interrupted", "diverged", "pending", "stopped", "completed"),
)
_HEAD_LINES = 5
_SHORTEST_NAME = 18
_SHORTEST_BAR = 8


class Progress:
    """How far a command is: called with what is done and how much there is, and told what the user should know.

    Lines go through :meth:`say`: whatever else writes to the terminal breaks the bar.
    """

    def __init__(self, screen: Terminal, title: str) -> None:
        self._screen = screen
        self._title = title
        self._done, self._total = 0, 0
        self._begun = self._printed = monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Move the bar, or print a line now and then where there is no terminal."""
        self._done, self._total = done, total
        now = monotonic()
        if not self._screen.live and (now - self._printed >= PROGRESS_SECONDS or done == total):
            self._printed = now
            self._screen.say(f"{self._title}: {done}/{total} · {duration(now - self._begun)}")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._screen.say(message)

    def render(self, width: int, height: int) -> RenderableType:
        """Return the bar; as long as it is not known how much there is, it pulses."""
        spent = monotonic() - self._begun
        left = spent / self._done * (self._total - self._done) if self._done else None
        texts = [(1, _of(self._done, self._total)), (3, duration(spent)), (2, _left(left))]
        return _bar(self._title, self._done, self._total, texts, width)


@contextmanager
def progress_bar(title: str, *, file: TextIO | None = None) -> Iterator[Progress]:
    """Show how far a command is while the body runs."""
    with Terminal(file) as screen:
        progress = Progress(screen, title)
        screen.show(progress.render)
        yield progress


class StudyConsole(StudyListener):
    """Shows the trials of a study: a table that is redrawn, or plain lines where there is no terminal."""

    def __init__(self, screen: Terminal, *, metrics: Sequence[str] = DEFAULT_METRICS) -> None:
        self._metrics = tuple(metrics)
        self._terminal = screen
        self._trials: dict[str, TrialStatus] = {}
        self._seen: dict[str, float] = {}
        self._printed: dict[str, float] = {}

    def started(self, name: str, path: Path, trials: Sequence[TrialStatus]) -> None:
        """Say what runs and where its results will be."""
        self._trials = {trial.name: trial for trial in trials}
        self._seen = dict.fromkeys(self._trials, monotonic())
        kept = sum(trial.restored for trial in trials)
        earlier = f", {kept} of them finished earlier" if kept else ""
        self._terminal.say(f"{name}: {counted(len(trials), 'trial')}{earlier}; results in {shown_path(path)}")
        self._terminal.show(self._render)

    def changed(self, trial: TrialStatus) -> None:
        """Take the trial's new numbers into the table, or print them when they are worth a line."""
        before, now = self._trials.get(trial.name), monotonic()
        self._trials[trial.name] = trial
        self._seen[trial.name] = now
        new_state = before is None or before.state != trial.state
        if self._terminal.live:
            if new_state and trial.state == "failed":
                self._terminal.say(f"{trial.name} failed: {trial.error}", "red")
            return
        validated = before is not None and self._scores(before) != self._scores(trial)
        due = (
            trial.step > 0 and now - self._printed.get(trial.name, now - PROGRESS_SECONDS) >= PROGRESS_SECONDS
        )
        if new_state or validated or (trial.state == "running" and due):
            self._printed[trial.name] = now
            self._terminal.say(self._line(trial, with_scores=new_state or validated))

    def notified(self, message: str) -> None:
        """Print a line once: the first trial that reports it stands for all."""
        name, _, text = message.partition(": ")
        self._terminal.tell_once(message, key=text if name in self._trials else None)

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Take the table away and say how many trials did what, and where the results are."""
        self._terminal.clear()
        states = [trial.state for trial in self._trials.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        self._terminal.say(
            f"{summary['study']}: {counts or 'no trials'} in {duration(summary['seconds'])}; "
            f"results in {shown_path(summary['path'])}"
        )

    def _scores(self, trial: TrialStatus) -> dict[str, str]:
        """Validation metrics as text, so that NaN equals NaN."""
        return {key: str(value) for key, value in trial.metrics.items() if _is_score(key)}

    def _line(self, trial: TrialStatus, *, with_scores: bool) -> str:
        if trial.state == "failed":
            return f"{trial.name}: failed: {trial.error}"
        parts = [trial.stage] if trial.stage and trial.state == "running" else []
        parts += _position(trial.step, trial.total_steps, trial.epoch) if trial.step else []
        if "loss" in trial.metrics and trial.state == "running":
            parts.append(metric_phrase("loss", trial.metrics["loss"]))
        if with_scores:
            parts += [metric_phrase(key, trial.metrics[key]) for key in self._metrics if key in trial.metrics]
        if trial.seconds:
            parts.append(_spent(trial.seconds, trial.seconds_left))
        return ": ".join([trial.name, " · ".join([trial.state, *parts])])

    def _render(self, width: int, height: int) -> RenderableType:
        now = monotonic()
        # Copied, because the block is drawn by a thread of its own.
        trials, seen = list(self._trials.values()), dict(self._seen)
        waited = {name: now - heard for name, heard in seen.items()}
        return _trial_table(trials, self._metrics, waited, height)


class RunConsole(RunListener):
    """Shows one run: a progress bar and a line per validation, or plain lines where there is no terminal.

    Works in a process whose stdout and stderr are redirected into a log after this was made or unpickled,
    and also when it only gets a run's progress and end. Without a screen it prints to stderr as it is now.
    """

    def __init__(self, screen: Terminal | None = None) -> None:
        self._terminal = screen or Terminal()
        self._start: RunStart | None = None
        self._latest: RunProgress | None = None
        self._train: dict[str, float] = {}
        self._seen = 0.0
        self._printed: float | None = None

    def started(self, start: RunStart, notify: Notify) -> None:
        """Say what runs and where its results will be."""
        self._start, self._latest, self._train = start, None, {}
        resumed = f" from step {start.resumed_step}" if start.resumed_step else ""
        self._terminal.say(
            f"{start.name}: {counted(start.total_steps, 'step')}{resumed}; "
            f"results in {shown_path(start.path)}"
        )

    def progressed(self, progress: RunProgress) -> None:
        """Move the bar, and print a line for a validation."""
        now = monotonic()
        is_first, self._latest, self._seen = self._latest is None, progress, now
        if is_first:
            self._terminal.show(self._render)
        if progress.kind == "train":
            self._train = dict(progress.metrics)
            due = self._printed is None or now - self._printed >= PROGRESS_SECONDS
            if self._terminal.live or not due:
                return
            scores = [metric_phrase(key, value) for key, value in self._train.items() if key == "loss"]
        else:
            scores = self._scores(progress.metrics)
        self._printed = now
        left = None if self._terminal.live else self._seconds_left(0.0)
        position = _position(progress.step, progress.total_steps, progress.epoch)
        self._terminal.say(" · ".join([*position, *scores, _spent(progress.seconds, left)]))

    def notified(self, message: str) -> None:
        """Print a line once."""
        self._terminal.tell_once(message)

    def finished(self, result: RunResult) -> None:
        """Take the bar away and say how the run ended and where its results are."""
        self._terminal.clear()
        where = f"; results in {shown_path(self._start.path)}" if self._start else ""
        # Why it failed is what the error says that the run ends with.
        spent = f" in {duration(result.seconds)}" if result.state == "completed" else ""
        style = "red" if result.state == "failed" else ""
        self._terminal.say(f"{result.name}: {result.state}{spent}{where}", style)

    def _scores(self, metrics: Mapping[str, Figure]) -> list[str]:
        named = {re.sub(f"^{UNTRAINED}", "eval_", key): value for key, value in metrics.items()}
        # Of the usual metrics those that were validated; all that were where there is none of these.
        wanted = [*DEFAULT_METRICS, *(under(key, TEST) for key in DEFAULT_METRICS)]
        chosen = [key for key in wanted if key in named]
        rest = [key for key in named if _is_score(key) and key != "eval_loss"]
        loss = ["eval_loss"] if "eval_loss" in named and "eval_loss" not in chosen else []
        return [metric_phrase(key, named[key]) for key in [*loss, *(chosen or rest)]]

    def _seconds_left(self, waited: float) -> float | None:
        resumed = self._start.resumed_step if self._start else 0
        if self._latest is None or self._latest.step <= resumed:
            return None
        # Its seconds are those of all steps, also of the sessions before.
        left = self._latest.seconds / self._latest.step * (self._latest.total_steps - self._latest.step)
        return max(0.0, left - waited)

    def _render(self, width: int, height: int) -> RenderableType:
        latest, waited = self._latest, monotonic() - self._seen
        if latest is None:
            return Text()
        rate = self._train.get("learning_rate")
        texts = [
            (1, _of(latest.step, latest.total_steps)),
            (5, f"epoch {latest.epoch:.2f}"),
            (2, f"loss {metric_figure('loss', self._train['loss'])}" if "loss" in self._train else ""),
            (6, f"lr {rate:.1e}" if rate is not None else ""),
            (4, duration(waited + latest.seconds)),
            (3, _left(self._seconds_left(waited))),
        ]
        title = self._start.name if self._start else ""
        return _bar(title, latest.step, latest.total_steps, texts, width)


def _trial_table(
    trials: Sequence[TrialStatus], metrics: Sequence[str], waited: Mapping[str, float], height: int
) -> FittedTable:
    """Return the table of trials, as wide and high as there is room for.

    What does not fit is left out whole: columns from the least important one, and rows of trials that are
    not running, which are then counted.

    ``waited`` are seconds since each trial was last heard of; they count as run. ``height`` is in lines.
    """
    urgent = sorted(range(len(trials)), key=lambda place: _URGENCY.index(trials[place].state))
    rows = [trials[place] for place in sorted(urgent[: max(1, height - _HEAD_LINES)])]
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


def _bar(title: str, done: int, total: int, texts: Sequence[tuple[int, str]], width: int) -> RenderableType:
    """Return a bar with a title before it and texts, each with its rank, after it as far as there is room."""
    columns = [column("", [text], rank) for rank, text in [(0, title), *texts] if text or rank == 0]
    first, *others = fitting(columns, width - _SHORTEST_BAR - GAP)
    grid = Table.grid(padding=(0, GAP, 0, 0), expand=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1, min_width=_SHORTEST_BAR)
    for each in others:
        grid.add_column(no_wrap=True, justify="right", width=each.width)
    bar = ProgressBar(total=total or None, completed=done)
    grid.add_row(*first.texts, bar, *(text for each in others for text in each.texts))
    return grid


def _of(done: int, total: int) -> str:
    """Return how far something is; nothing while there is nothing to count."""
    return f"{done}/{total}" if total else str(done or "")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} left"


def _spent(seconds: float, left: float | None) -> str:
    return ", ".join(filter(None, [duration(seconds), _left(left)]))


def _is_score(metric: str) -> bool:
    return metric.startswith("eval_") and not is_speed(metric) and class_figure(metric) is None


def _position(step: int, total_steps: int, epoch: float) -> list[str]:
    return [f"step {step}/{total_steps}" if total_steps else f"step {step}", f"epoch {epoch:.2f}"]
