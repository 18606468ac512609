"""The page of a batch: who is best, who is no better than the trivial baseline, and all figures with their gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.metrics.metric import Metric, recorded
from dure.reporting.columns import Rows
from dure.reporting.figures import BASELINE, counted, metric_phrase, number
from dure.reporting.marks import sentence
from dure.reporting.page import Section, Table
from dure.reporting.summary import experiment_columns, gains_of, ranked
from dure.studies.batch.results import BatchResults
from dure.studies.pairs import paired_sentences
from dure.studies.results import TrialRecord
from dure.studies.viewing import View, failures


class BatchView(View[BatchResults]):
    """A batch: its experiments, best first."""

    @classmethod
    def facts_of(cls, results: BatchResults, path: Path) -> dict[str, Any]:
        """Return verdict and gains of a batch."""
        metric = recorded(results.as_json(), results.metrics[0])
        trials = {trial.name: trial for trial in results.experiments}
        scores = {
            trial.name: score
            for trial in results.experiments
            if trial.state == "completed" and (score := number(trial.metrics.get(metric.name))) is not None
        }
        told = []
        if scores:
            best = metric.ranked(scores)[0]
            equal = [name for name, score in scores.items() if score == scores[best] and name != best]
            first = metric_phrase(metric, scores[best])
            if equal:
                told.append(
                    f"{best} and {', '.join(equal)} tie at {first}, the best of {counted(len(scores), 'experiment')}."
                )
            elif len(scores) > 1:
                told.append(
                    f"{best} has the best score of {len(scores)} experiments: {first} on the validation rows."
                )
            else:
                told.append(f"{best} has {first} on the validation rows.")
        else:
            told.append(f"No experiment completed with a {metric.name}.")
        told += _beside_baseline(metric, scores, trials)
        folders = cls.run_folders(results, path)
        told += paired_sentences({name: folders[name] for name in metric.ranked(scores)}, metric)
        told += failures({trial.name: trial.state for trial in results.experiments})
        gains = gains_of(results.as_json()["experiments"], metric.name)
        return {"metric": metric.name, "sentences": told, "gains": gains}

    def sections(self) -> Sequence[Section]:
        """Return the table of a batch, best first."""
        record, results = self.record, self.results
        metric, experiments = recorded(record.data, results.metrics[0]), record.get("experiments")
        order = ranked(experiments, metric)
        columns = experiment_columns(record, self.facts, order)
        rows, gains = (
            Rows.of(each, key, order=order) for each, key in ((record, "experiments"), (self.facts, "gains"))
        )
        if any("baseline" in each for each in self.facts.get("gains")):
            baseline = metric.name.replace("eval_", BASELINE, 1)
            columns[3:3] = [
                rows.column("trivial baseline", "metrics", baseline, figure=metric),
                gains.column("above it", "baseline", change=metric),
            ]
        columns.append(rows.column("peak memory", "metrics", "peak_memory_mb", written="memory"))
        strong = [at for at, place in enumerate(order) if experiments[place]["name"] == results.best]
        caption = sentence("Experiments, best {} first", record.mark("metrics", 0, written="metric"))
        return [Section("Experiments", [Table(caption, columns, strong)])]


def _beside_baseline(
    metric: Metric, scores: Mapping[str, float], trials: Mapping[str, TrialRecord]
) -> list[str]:
    below = [
        name
        for name, score in scores.items()
        if (baseline := _before(trials[name], metric.name, BASELINE)) is not None
        and not metric.better(score, baseline)
    ]
    return [f"No better than the trivial baseline: {', '.join(below)}."] if below else []


def _before(trial: TrialRecord, metric: str, prefix: str) -> float | None:
    return (
        number(trial.metrics.get(metric.replace("eval_", prefix, 1))) if metric.startswith("eval_") else None
    )
