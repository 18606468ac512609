"""One stage of a progressive training: what it trains on, from where, and what it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment
from dure.errors import DureError, RunError, counted, one_line
from dure.events import Notify
from dure.family import load_family
from dure.files import read_json_lines, write_json
from dure.metrics.metric import BASELINE, Metric, under
from dure.runs import checkpoints
from dure.runs.epochs import BEST, epochs_of, mark_best
from dure.runs.folder import RunFolder, RunResult, StageFolder, finite
from dure.studies.divergence import DivergedError, DivergenceGuard, first_loss
from dure.studies.progressive.plan import ProgressiveStudy, stage_name
from dure.studies.progressive.scheduler import DATA_RATIO, INTERRUPTED
from dure.studies.trial import Train, TrialRequests, fit_trial
from dure.training.arguments import check_shares
from dure.training.memory import resident_mb
from dure.training.run import RunRequest

SCORE = "score"
"""Key of a stage's result that holds the metric by which candidates are compared."""
TRIVIAL = "baseline"
"""Key of a stage's result that holds what the same metric is without learning."""
TRAINED = "trained"
"""Key of a stage's result that says whether this session trained it."""

_SMALL, _MIDDLE = Fraction(1, 10), Fraction(1, 2)


def batch_size_at(
    ratio: Fraction,
    batch_size: int,
    effective_batch_size: int,
    *,
    most: int | None = None,
    num_workers: int = 1,
    limit: int | None = None,
) -> int:
    """Return the rows of one forward pass at a ratio; accumulation makes up for the effective batch.

    A quarter of the whole batch up to a tenth of the data, half of it up to half of the data, then all. The whole batch
    has at most ``most`` rows; ``limit`` bounds the result after memory ran short.

    Raises:
        UserError: The workers cannot share the experiment's batch out evenly.
    """
    check_shares(batch_size, num_workers, effective_batch_size)
    share = Fraction(1, 4) if ratio <= _SMALL else Fraction(1, 2) if ratio <= _MIDDLE else Fraction(1)
    whole = batch_size if most is None else min(batch_size, most)
    wanted = int(whole * share)
    if limit is not None:
        wanted = min(wanted, limit)
    fitting = [
        rows
        for rows in range(num_workers, max(wanted, num_workers) + 1, num_workers)
        if effective_batch_size % rows == 0
    ]
    return fitting[-1]


def stage_experiment(
    experiment: Experiment, study: ProgressiveStudy, number: int, ratio: Fraction, batch_size: int
) -> Experiment:
    """Return what a stage runs: the experiment on a part of the data, with an epoch's end as the only stop."""
    training = experiment.training
    return experiment.with_(
        {
            "experiment.name": f"{experiment.name[:80]}.{stage_name(number, ratio)}",
            "training.epochs": study.epochs_per_stage,
            "training.max_steps": None,
            "training.eval_every": "epoch",
            "training.keep_epochs": 1,
            "training.keep_epochs_limit": study.epochs_per_stage,
            "training.batch_size": batch_size,
            "training.gradient_accumulation_steps": training.effective_batch_size // batch_size,
            "training.eval_batch_size": training.rows_evaluated,
            "training.evaluate_untrained": training.evaluate_untrained and number == 1,
            "data.train_ratio": ratio,
        }
    )


def stage_folders(study: ProgressiveStudy, path: Path) -> list[StageFolder]:
    """Return the folders of a candidate's stages in their order."""
    return [StageFolder(path / stage_name(number, ratio)) for number, ratio in enumerate(study.ratios, 1)]


def run_stage(config: Mapping[str, Any], requests: TrialRequests, study: ProgressiveStudy) -> dict[str, Any]:
    """Run the stage that ``config["data_ratio"]`` says, unless it is finished, and return its report to the scheduler.

    A stage of which a stop was asked is reported as such, and the next session continues it.

    Raises:
        RunError: It failed, which is the candidate's result.
    """
    base = requests.of(config)
    folders = stage_folders(study, base.path)
    place = [float(ratio) for ratio in study.ratios].index(config[DATA_RATIO])
    is_trained = folders[place].read_training_metrics() is None
    if is_trained:
        try:
            is_over = _train_stage(base, study, folders, place, requests.train)
        except DureError as error:
            failure = DivergedError if isinstance(error, DivergedError) else RunError
            raise failure(f"{folders[place].path.name}: {one_line(error)}") from error
        if not is_over:
            RunFolder(base.path).write_result(RunResult(base.experiment.name, "interrupted"))
            return {INTERRUPTED: True}
    record = folders[place].read_training_metrics() or {}
    metric = load_family(base.experiment).best_metric
    _tidy(metric, folders[: place + 1])
    if place == len(folders) - 1:
        RunFolder(base.path).write_result(
            RunResult(
                base.experiment.name,
                "completed",
                metrics=record["metrics"],
                seconds=float(
                    sum(done["seconds"] for each in folders if (done := each.read_training_metrics()))
                ),
            )
        )
    baseline = _baseline(metric, record["metrics"]) if study.on_baseline == "stop" else None
    return {
        DATA_RATIO: config[DATA_RATIO],
        SCORE: record["score"],
        TRIVIAL: baseline,
        TRAINED: is_trained,
    }


def _train_stage(
    base: RunRequest, study: ProgressiveStudy, folders: list[StageFolder], place: int, train: Train
) -> bool:
    """Train one stage, write its record and report to the user; return whether it finished."""
    notify = base.event_log("trial").notified
    folder, ratio, number = folders[place], study.ratios[place], place + 1
    before = folders[place - 1].read_training_metrics() if place else None
    limit = None if before is None else before["batch_limit"]
    request = _request_of_stage(base, study, folders, place, limit)
    training = request.experiment.training
    # Remove a stage that was begun with other settings, such as another number of epochs: it cannot
    # go on with these.
    file = folder.experiment
    if file.is_file() and file.read_text(encoding="utf-8") != dump_yaml(request.experiment):
        shutil.rmtree(folder.path)
    result = fit_trial(request, train)
    if result.state == "interrupted":
        return False
    num_epochs = len(epochs_of(folder.checkpoints))
    best_epoch = round(float(result.metrics["best_step"]) / float(result.metrics["steps"]) * num_epochs)
    best = mark_best(folder.checkpoints, best_epoch)
    folder.write_result(replace(result, best_checkpoint=str(best.relative_to(folder.path))))
    notify(_summary(base.experiment, number, len(folders), result))
    metric = load_family(base.experiment).best_metric
    if place == 0:
        _warn_of_baseline(metric, result, study, notify)
    peak = float(result.metrics["peak_memory_mb"])
    if study.max_memory_mb is not None and peak > study.max_memory_mb:
        limit = max(base.profile.num_workers, training.batch_size // 2)
        is_less = limit < training.batch_size
        notify(_too_much_memory(number, peak, study.max_memory_mb, limit, is_less=is_less))
    record = {
        "stage": number,
        "name": folder.path.name,
        "ratio": float(ratio),
        "num_rows": result.metrics["num_train_rows"],
        "num_rows_in_all": result.metrics["num_rows_in_all"],
        "num_dev_rows": result.metrics["num_dev_rows"],
        "score": result.metrics.get(metric.name),
        "metrics": finite(result.metrics),
        "best_epoch": best_epoch,
        "checkpoint": str(best.relative_to(base.path)),
        "warm_start": None if request.warm_start is None else str(request.warm_start.relative_to(base.path)),
        "seconds": result.seconds,
        "peak_memory_mb": peak,
        "cpu_percent": result.metrics["cpu_percent"],
        "batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "batch_limit": limit,
        "samples": int(result.metrics["num_train_rows"]) * num_epochs,
        "records": read_json_lines(folder.metrics),
    }
    write_json(folder.training_metrics, record)
    return True


def _request_of_stage(
    base: RunRequest, study: ProgressiveStudy, folders: list[StageFolder], place: int, limit: int | None
) -> RunRequest:
    """Return the run of a stage, from the best model of the stage before."""
    folder, ratio, training = folders[place], study.ratios[place], base.experiment.training
    batch_size = batch_size_at(
        ratio,
        training.batch_size,
        training.effective_batch_size,
        most=study.max_batch_size,
        num_workers=base.profile.num_workers,
        limit=limit,
    )
    guard = DivergenceGuard(first_loss(folders[0]) if place else None)
    return replace(
        base,
        listeners=(guard, *base.listeners),
        experiment=stage_experiment(base.experiment, study, place + 1, ratio, batch_size),
        path=folder.path,
        layout=StageFolder,
        events=base.folder().events,
        warm_start=folders[place - 1].checkpoints / BEST if place else None,
    )


def _warn_of_baseline(metric: Metric, result: RunResult, study: ProgressiveStudy, notify: Notify) -> None:
    """Warn when the first stage is no better than the trivial predictor."""
    baseline = _baseline(metric, result.metrics)
    if baseline is None or beats_baseline(metric, result.metrics):
        return
    goes_on = "; going on (--on-baseline warn)"
    is_stopped = "; it is stopped (more --epochs-per-stage or rows may help, --on-baseline warn goes on)"
    notify(
        f"no better than a model that learns nothing ({metric.name} {baseline:.4f})"
        + (goes_on if study.on_baseline == "warn" else is_stopped)
    )


def _too_much_memory(number: int, peak: float, most: int, limit: int, *, is_less: bool) -> str:
    """Return the warning of a stage that took more memory than it may, and what the next one takes."""
    return f"stage {number} took {peak:,.0f} MiB, more than --max-memory-mb {most:,}; " + (
        f"the next stage takes at most {counted(limit, 'row')} at a time"
        if is_less
        else f"it took {counted(limit, 'row')} at a time already, the fewest that are possible"
    )


def _baseline(metric: Metric, metrics: Mapping[str, Any]) -> float | None:
    value = metrics.get(under(metric.name, BASELINE))
    return None if value is None else float(value)


def beats_baseline(metric: Metric, metrics: Mapping[str, Any]) -> bool:
    """Return whether metrics are better than those of a model that learns nothing, as far as both are known."""
    score, baseline = metrics.get(metric.name), _baseline(metric, metrics)
    return score is None or baseline is None or metric.better(float(score), baseline)


def best_place(metric: Metric, scores: Sequence[float | None]) -> int | None:
    """Return the place of the best score on the one dev set that all stages share; the later of equals."""
    return metric.best(dict(reversed(list(enumerate(scores)))))


def _tidy(metric: Metric, finished: Sequence[StageFolder]) -> None:
    """Remove what finished stages need no more: their checkpoints, and all models but the best.

    The weights of every epoch lie beside them, and a finished stage is not continued.
    """
    checkpoints.remove_checkpoints(finished[-1].checkpoints)
    scores = [(folder.read_training_metrics() or {}).get("score") for folder in finished]
    best = best_place(metric, scores)
    for place, folder in enumerate(finished):
        if place != best:
            shutil.rmtree(folder.final_model, ignore_errors=True)


def _summary(experiment: Experiment, number: int, num_stages: int, result: RunResult) -> str:
    metric, figures = experiment.training.best_metric, result.metrics
    score = figures.get(metric)
    return (
        f"stage {number} of {num_stages}: {counted(int(figures['num_train_rows']), 'row')}, {metric} "
        f"{'missing' if score is None else f'{score:.4f}'}, {result.seconds:.0f} s, peak memory "
        f"{figures['peak_memory_mb']:,.0f} MiB, CPU {figures['cpu_percent']:.0f} %, "
        f"{figures['unreleased_memory_mb']:,.0f} MiB of tensors not released, {resident_mb():,.0f} MiB resident"
    )
