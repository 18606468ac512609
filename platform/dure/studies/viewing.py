"""What a kind of study adds to its page: its verdict, its table and its pictures.

The rest of a page is the same for all kinds, and :mod:`dure.studies.reports` makes it: curves, examples, failures,
machine, lineage, command.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from dure.pages.run_facts import best_metric
from dure.pages.shared_sections import Runs
from dure.reporting.columns import Rows
from dure.reporting.figures import some_names
from dure.reporting.marks import Source
from dure.reporting.page import Section, Table
from dure.studies.results import StudyResults, TrialRecord

Results = TypeVar("Results", bound=StudyResults)


@dataclass(frozen=True)
class View(Generic[Results]):
    """A study as its page shows it; each kind overrides what it shows, here the trials."""

    path: Path
    """Folder of the study, wherever it lies by now."""
    results: Results
    """What it came to."""
    record: Source
    """The same, as the record whose values can be marked."""
    facts: Source
    """What :meth:`facts_of` computed, as a record too."""
    runs: Runs
    """Its runs, with their records."""

    @classmethod
    def run_folders(cls, results: Results, path: Path) -> Mapping[str, Path]:
        """Return the folder of every run by its name, the most important one first; here the trials."""
        folders = {trial.name: moved(trial.path, results, path) for trial in results.trial_records}
        return dict(sorted(folders.items(), key=lambda each: each[0] != getattr(results, "best", None)))

    @classmethod
    def facts_of(cls, results: Results, path: Path) -> Mapping[str, Any]:
        """Return what the page says beside the record, computed from the study's files; again when it is verified.

        ``sentences`` is the verdict, ``metric`` what the curves are drawn of. Of a study that still runs, what is
        known so far.
        """
        runs = [*cls.run_folders(results, path).values()]
        return {
            "metric": best_metric(runs[0]).name if runs else "eval_loss",
            "sentences": failures(results.trial_records),
        }

    def sections(self) -> Sequence[Section]:
        """Return what the page shows after the verdict: tables and pictures."""
        rows = Rows.of(self.record, "experiments")
        if not rows.places:
            return []
        metric = best_metric(next(iter(self.runs.folders.values())))
        label = self.record.label(metric, *rows.places[0], "metrics", metric.name, written="label")
        columns = [
            rows.column("trial", "name", is_text=True),
            rows.column("state", "state", is_text=True),
            rows.column(label, "metrics", metric.name, figure=metric),
            rows.column("time", "seconds", written="duration"),
        ]
        return [Section("Trials", [Table("Trials, by what chose their checkpoints", columns)])]


def moved(recorded: str, results: StudyResults, path: Path) -> Path:
    """Return where a folder lies that a record names, given where the study lies by now."""
    return path / os.path.relpath(recorded, results.path)


def failures(trials: Iterable[TrialRecord]) -> list[str]:
    """Return a sentence on the trials that did not come to their end, by state; nothing when all did."""
    states: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state != "completed":
            states.setdefault(trial.state, []).append(trial.name)
    return [f"{state.capitalize()}: {some_names(names)}." for state, names in states.items()]
