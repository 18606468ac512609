"""The page of a batch: who is best, who is no better than the trivial baseline, and all figures with their gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.metrics.metric import Metric, recorded
from dure.pages.shared_sections import text_head
from dure.reporting.figures import BASELINE, UNTRAINED, counted, metric_figure, metric_phrase, number
from dure.reporting.marks import sentence
from dure.reporting.page import Block, Head, Inline, Section, Table
from dure.studies.batch.results import BatchResults, Setting
from dure.studies.pairs import paired_sentences
from dure.studies.results import TrialRecord
from dure.studies.viewing import View, failures

_ONE_SEED = (
    "Each was trained by one seed: the intervals say how far a difference depends on the test rows, and nothing of "
    "another seed."
)


class BatchView(View[BatchResults]):
    """A batch: its experiments, best first; with several seeds, first what they are worth as means over these."""

    @classmethod
    def run_folders(cls, results: BatchResults, path: Path) -> Mapping[str, Path]:
        """Return the folder of every run by its name; of several seeds, those of the best setting first."""
        folders = super().run_folders(results, path)
        first = next((each.runs for each in results.settings if each.name == results.best), ())
        return {name: folders[name] for name in (*first, *(each for each in folders if each not in first))}

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
        if results.settings:
            told = _over_seeds(results, metric)
        else:
            told = _of_one_seed(cls.run_folders(results, path), metric, scores, trials)
        told += failures({trial.name: trial.state for trial in results.experiments})
        gains = {name: _gains(trial, results.metrics) for name, trial in trials.items()}
        return {"metric": metric.name, "sentences": told, "gains": gains}

    def sections(self) -> Sequence[Section]:
        """Return the table of a batch, best first."""
        results, record = self.results, self.record
        metrics = [recorded(results.as_json(), name) for name in results.metrics]
        order = ranked_places(results.experiments, metrics[0])
        rows = [_row(self, place, metrics) for place in order]
        has_baseline = any(
            _before(trial, metrics[0].name, BASELINE) is not None for trial in results.experiments
        )
        has_untrained = any(
            _before(trial, metrics[0].name, UNTRAINED) is not None for trial in results.experiments
        )
        heads = [text_head("experiment"), text_head("state")]
        for place, metric in enumerate(metrics):
            heads.append(Head(self.label(metric, "metrics", place)))
            if place == 0:
                heads += [Head("trivial baseline"), Head("above it")] if has_baseline else []
                heads += [Head("above untrained")] if has_untrained else []
        heads += [Head("time"), Head("peak memory")]
        skipped = {3, 4} if not has_baseline else set()
        skipped |= {5} if not has_untrained else set()
        kept = [[cell for at, cell in enumerate(row) if at not in skipped] for row in rows]
        strong = frozenset(
            at for at, place in enumerate(order) if results.experiments[place].name == results.best
        )
        caption = sentence("Experiments, best {} first", record.mark("metrics", 0, written="metric"))
        of_seeds = [Section("Settings", [_settings(self, metrics)])] if results.settings else []
        return [*of_seeds, Section("Experiments", [Table(caption, heads, kept, strong)])]


def _of_one_seed(
    folders: Mapping[str, Path],
    metric: Metric,
    scores: Mapping[str, float],
    trials: Mapping[str, TrialRecord],
) -> list[str]:
    """Return who is best, who is no better than the trivial baseline, and how sure that is by the test rows."""
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
    paired = paired_sentences({name: folders[name] for name in metric.ranked(scores)}, metric)
    return told + ([*paired, _ONE_SEED] if paired else [])


def _over_seeds(results: BatchResults, metric: Metric) -> list[str]:
    """Return the means over seeds, best first, and every two settings by the same seeds."""
    told = [_mean_sentence(each, metric) for each in _by_mean(results.settings, metric)]
    if results.best is None:
        told.append("No setting has all its scores and a mean above the trivial baseline.")
    return told + [each.sentence for each in results.comparisons]


def _mean_sentence(setting: Setting, metric: Metric) -> str:
    mean, deviation = setting.mean.get(metric.name), setting.deviation.get(metric.name)
    if mean is None:
        return f"{setting.name}: no run has a {metric.name}."
    told = (
        f"{setting.name}: {metric_phrase(metric, mean)} as a mean over {counted(setting.num_scored, 'seed')}"
    )
    if deviation is not None:
        told += f", standard deviation {metric_figure(metric, deviation)}"
    if setting.baseline is not None and not metric.better(mean, setting.baseline):
        told += f"; no better than the trivial baseline ({metric_figure(metric, setting.baseline)})"
    return f"{told}."


def _by_mean(settings: Sequence[Setting], metric: Metric) -> list[Setting]:
    return sorted(settings, key=lambda each: metric.cost(each.mean.get(metric.name)))


def _settings(view: View[BatchResults], metrics: Sequence[Metric]) -> Block:
    """Return the mean of every setting over its seeds with the deviation between them, best mean first."""
    record, settings = view.record, view.results.settings
    order = [settings.index(each) for each in _by_mean(settings, metrics[0])]
    rows: list[list[Inline]] = [
        [
            record.mark("settings", place, "name"),
            record.mark("settings", place, "num_scored", written="count"),
            *(
                sentence(
                    "{} ± {}",
                    record.figure("settings", place, "mean", metric.name, metric=metric),
                    record.figure("settings", place, "deviation", metric.name, metric=metric),
                )
                for metric in metrics
            ),
            record.figure("settings", place, "baseline", metric=metrics[0]),
        ]
        for place in order
    ]
    heads = [text_head("setting"), Head("seeds")]
    heads += [Head(view.label(metric, "metrics", place)) for place, metric in enumerate(metrics)]
    strong = frozenset(at for at, place in enumerate(order) if settings[place].name == view.results.best)
    caption = "Mean over the seeds ± standard deviation between them, on the validation rows"
    return Table(caption, [*heads, Head("trivial baseline")], rows, strong)


def ranked_places(trials: Sequence[TrialRecord], metric: Metric) -> list[int]:
    """Return the places of trials, best first by a metric; those that did not complete come last."""

    def cost(place: int) -> tuple[bool, float]:
        trial = trials[place]
        score = number(trial.metrics.get(metric.name))
        return trial.state != "completed", 0.0 if metric.direction is None else metric.cost(score)

    return sorted(range(len(trials)), key=cost)


def _row(view: View[BatchResults], place: int, metrics: Sequence[Metric]) -> list[Inline]:
    record, first = view.record, metrics[0]
    name = view.results.experiments[place].name
    at = ("experiments", place)
    cells: list[Inline] = [record.mark(*at, "name"), record.mark(*at, "state")]
    for metric in metrics:
        cells.append(record.figure(*at, "metrics", metric.name, metric=metric))
        if metric is first:
            baseline = metric.name.replace("eval_", BASELINE, 1)
            cells += [
                record.figure(*at, "metrics", baseline, metric=metric),
                view.facts.change("gains", name, "baseline", metric=metric),
                view.facts.change("gains", name, "untrained", metric=metric),
            ]
    cells += [
        record.mark(*at, "seconds", written="duration"),
        record.mark(*at, "metrics", "peak_memory_mb", written="memory"),
    ]
    return cells


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


def _gains(trial: TrialRecord, metrics: Sequence[str]) -> dict[str, float]:
    score = number(trial.metrics.get(metrics[0]))
    found = {}
    for what, prefix in (("baseline", BASELINE), ("untrained", UNTRAINED)):
        before = _before(trial, metrics[0], prefix)
        if score is not None and before is not None:
            found[what] = score - before
    return found


def _before(trial: TrialRecord, metric: str, prefix: str) -> float | None:
    return (
        number(trial.metrics.get(metric.replace("eval_", prefix, 1))) if metric.startswith("eval_") else None
    )
