"""Folders of runs and of every kind of study as dure leaves them, without a training: records alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from dure.config import dump_yaml
from dure.config.schema import Experiment
from dure.epochs.loss_series import Point
from dure.epochs.sweet_spot import analysis_record
from dure.events import EventLog, Notice, RunStart, TrialStatus
from dure.files import write_json, write_text
from dure.metrics.metric import Metric
from dure.metrics.targets import Target
from dure.runs.folder import RunFolder, RunResult
from dure.runs.restarts import Restarts
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.results import BatchResults
from dure.studies.batch.strategy import best_setting, comparisons_of, settings_of
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.crossval.results import CrossvalResults, comparisons
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.sweep.driver import SweepKind
from dure.studies.sweep.plan import SweepStudy
from dure.studies.sweep.results import SweepPoint, SweepRecord, SweepResults
from dure.studies.sweep.verdict import sweep_verdict
from dure.studies.unified.plan import UnifiedStudy
from dure.studies.unified.results import UnifiedResults
from tests.platform.studies.crossval.put_together import together

RATE = "training.learning_rate"
ACCURACY = Metric("eval_accuracy", "max", "share")
DEFINITIONS = {ACCURACY.name: ACCURACY.definition(), "eval_f1[class]": {"direction": "max", "unit": "share"}}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"'&"
"""What a user may write into any text, name or label."""
LABELS = ("긍정", "부정", HOSTILE)


def experiment(name: str, **more: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "family": "trainables.transfer",
            "experiment": {"name": name, "description": f"Korean reviews {HOSTILE}"},
            "model": {"checkpoint": "klue/bert-base", "architecture": "bert"},
            "training": {"best_metric": ACCURACY.name, "learning_rate": 3e-5, "epochs": 3},
            **more,
        }
    )


def metrics(score: float) -> dict[str, float | int | str]:
    classes = {f"eval_f1[{label}]": score - place / 10 for place, label in enumerate(LABELS)}
    return {
        "eval_accuracy": score, "eval_loss": 1.3 - score, "baseline_accuracy": 0.55, "baseline_loss": 0.9,
        "untrained_accuracy": 0.25, "test_accuracy": score - 0.013, "test_loss": 1.35 - score, **classes,
        "num_dev_rows": 300, "num_train_rows": 2400, "num_rows_in_all": 2400, "steps": 90, "num_oom": 0,
        "num_restarts": 0, "peak_memory_mb": 1311.5, "train_samples_per_second": 51.123, "best_step": 60,
    }  # fmt: skip


def left_run(
    folder: Path,
    name: str,
    score: float | None = 0.8125,
    *,
    error: str | None = None,
    of: Experiment | None = None,
    points: int = 12,
) -> RunResult:
    """Leave the records of one run; without a score it failed."""
    run = RunFolder(folder)
    write_text(run.experiment, dump_yaml(of or experiment("mine")))
    write_json(run.environment, environment())
    records = []
    for step in range(points):
        share = (step + 1) / points
        at = {"step": 90 * share, "total_steps": 90, "epoch": 3 * share, "seconds": step + 1.0}
        records.append({"kind": "train", **at, "loss": 1.5 - share / 2, "learning_rate": 3e-5 * (1 - share)})
        if step % 4 == 3 and score is not None:
            records.append(
                {"kind": "eval", **at, "eval_accuracy": score * share, "eval_loss": 1.5 - share / 3}
            )
    run.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    events = EventLog(run.events, "worker 0")
    events.write(RunStart("mine", folder, {}, (), None, 90))
    events.write(Notice(f"training on 2,400 rows of {HOSTILE}"))
    is_whole = score is not None
    result = RunResult(
        name,
        "completed" if is_whole else "failed",
        metrics(score) if is_whole else {},
        "checkpoint-60" if is_whole else None,
        "final_model" if is_whole else None,
        3661.25,
        error,
        best_metric=ACCURACY.name,
        definitions=DEFINITIONS if is_whole else {},
        targets=(Target(ACCURACY, 0.94).reached(metrics(score)),) if score is not None else (),
        forecast={"seconds": [3000.0, 4000.0], "memory_mb": [1200.0, 1400.0]} if is_whole else None,
    )
    run.write_result(result)
    if score is not None:
        predictions(run.predictions)
    return result


def environment() -> dict[str, Any]:
    return {
        "python": "3.12.1", "platform": "Linux-6", "packages": {"torch": "2.13.0", "ray": "2.60.0"},
        "git": {"commit": "0123456789abcdef0123", "clean": True}, "profile": {"name": "cpu"}, "device": "x86_64",
        "num_workers": 1, "cpu_count": 8, "memory_mb": 32_768, "seed": 42,
        "data": {"train": "a6fa6a6c4d651aee", "dev": "9a9740050f35cd8b", "test": "2150afcab4ad70ee"},
    }  # fmt: skip


def predictions(file: Path, num_rows: int = 21, shift: int = 0) -> None:
    """Leave predictions of texts, of which the third is long and all are hostile; every fourth one is wrong."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            [
                "row",
                "text",
                "label",
                "predicted_label",
                *(f"probability_{each}" for each in LABELS),
                "score_accuracy",
            ]
        )
        for row in range(num_rows):
            label, is_wrong = LABELS[row % 3], (row + shift) % 4 == 3
            predicted = LABELS[(row + is_wrong) % 3]
            text = f"{row}번째 후기 {HOSTILE} " * (40 if row == 2 else 1)
            writer.writerow([row, text, label, predicted, 0.5, 0.3, 0.2, float(not is_wrong)])


def trial(folder: Path, name: str, result: RunResult) -> dict[str, Any]:
    return {
        "name": name, "state": result.state, "metrics": result.metrics, "error": result.error,
        "seconds": result.seconds, "path": str(folder / name),
    }  # fmt: skip


def about(folder: Path, name: str, kind: str) -> dict[str, Any]:
    started = "2026-11-20T09:30:00+00:00"
    return {
        "study": name,
        "kind": kind,
        "path": str(folder),
        "state": "completed",
        "started": started,
        "seconds": 754.2,
        "targets": [Target(ACCURACY, 0.8).reached({"eval_accuracy": 0.8125}, "one")],
    }


def left_batch(folder: Path) -> None:
    """Three experiments: two completed, one failed after a restart."""
    write_text(
        folder / "study.yaml",
        dump_yaml(BatchStudy(name="b", experiments=("one", "two", "three"), metrics=("eval_accuracy",))),
    )
    scores = {"one": 0.8125, "two": 0.7731, "three": None}
    trials = [trial(folder, name, left_run(folder / name, name, score, error=None if score else f"boom {HOSTILE}"))
              for name, score in scores.items()]  # fmt: skip
    predictions(folder / "two" / "predictions.csv", shift=1)
    Restarts(folder / "three", "s").add("killed by signal 9")
    BatchResults.model_validate(
        {**about(folder, "b", "batch"), "metrics": ["eval_accuracy"], "definitions": DEFINITIONS, "best": "one",
         "experiments": trials}
    ).write(folder / "experiment_summary.json")  # fmt: skip


def left_seeds(folder: Path) -> None:
    """Two experiments by three seeds each; the second is no better than the trivial baseline."""
    study = BatchStudy(name="m", experiments=("good", "poor"), metrics=("eval_accuracy",), seeds=3)
    write_text(folder / "study.yaml", dump_yaml(study))
    scores = {"good": (0.8125, 0.8031, 0.8287), "poor": (0.5113, 0.5021, 0.5325)}
    experiments = [experiment(name) for name in scores]
    runs = [
        left_run(folder / run.name, run.name, score)
        for each in experiments
        for run, score in zip(study.runs_of(each), scores[each.experiment.name], strict=True)
    ]
    statuses = [TrialStatus(each.name, each.state, folder / each.name, metrics=each.metrics) for each in runs]
    settings = settings_of(study, experiments, statuses, [ACCURACY])
    BatchResults.model_validate(
        {
            **about(folder, "m", "batch"), "metrics": ["eval_accuracy"], "definitions": DEFINITIONS,
            "best": best_setting(settings, ACCURACY), "experiments": [trial(folder, each.name, each) for each in runs],
            "settings": settings, "comparisons": comparisons_of(settings, statuses, ACCURACY),
        }
    ).write(folder / "experiment_summary.json")  # fmt: skip


def left_sweep(folder: Path, num_trials: int = 6, *, points: int = 12) -> None:
    """Trials at rising learning rates; the last one diverged."""
    study = SweepStudy(name="s", experiment="transfer_bert", num_trials=num_trials)
    write_text(folder / "study.yaml", dump_yaml(study))
    names = [f"trial_{place:03d}" for place in range(num_trials)]
    values = {name: {RATE: 1e-5 * 1.5**place} for place, name in enumerate(names)}
    trials = []
    for place, name in enumerate(names):
        score = None if place == num_trials - 1 else 0.6 + 0.25 * place / num_trials
        result = left_run(folder / name, name, score, error=None if score else "diverged", points=points)
        trials.append(trial(folder, name, result))
    trials[-1]["state"] = "diverged"
    results = SweepResults.model_validate(
        {
            **about(folder, "s", "sweep"), "metrics": ["eval_accuracy"], "directions": ["max"],
            "definitions": DEFINITIONS, "sampler": "grid", "scheduler": "none", "parameters": [RATE],
            "values": values, "proposed": values, "best": names[-2], "best_values": values[names[-2]],
            "front": [], "experiments": trials,
        }
    )  # fmt: skip
    tried = [
        SweepPoint(
            trial=each["name"], state=each["state"], params=values[each["name"]], proposed=values[each["name"]],
            peak_rate=values[each["name"]][RATE], in_warmup=False,
            metrics={"eval_accuracy": each["metrics"].get("eval_accuracy")}, loss=1.0, eval_loss=None, losses=(),
            validations=(), stability=None, samples_per_second=None, seconds=1.0, error=each["error"],
        )
        for each in trials
    ]  # fmt: skip
    record = folder / "lr_sweep_results" / "lr_sweep_1.json"
    results = results.with_values(verdict=sweep_verdict(results, tried, {}), record=str(record))
    SweepRecord.of(results, tried).write(record)
    results.write(folder / SweepKind.results_file)


def left_crossval(folder: Path, num_folds: int = 3) -> None:
    """Two experiments on folds, with their predictions."""
    write_text(
        folder / "study.yaml", dump_yaml(CrossvalStudy(name="c", experiments=("one", "two"), folds=num_folds))
    )
    found, trials = [], []
    for place, name in enumerate(("one", "two")):
        folds = []
        for number in range(1, num_folds + 1):
            path = folder / name / f"fold_{number}"
            fold = {"number": number, "of": num_folds, "seed": 42}
            result = left_run(
                path,
                f"{name}.fold_{number}",
                0.7 + number / 50 - place / 20,
                of=experiment(name, data={"fold": fold}),
            )
            with (path / "predictions.csv").open(encoding="utf-8", newline="") as stream:
                rows = list(csv.reader(stream))
            with (path / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows(
                    [rows[0], *([str(100 * number + int(row[0])), *row[1:]] for row in rows[1:])]
                )
            folds.append(path)
            trials.append({**trial(folder, result.name, result), "path": str(path)})
        found.append(together(name, folds, folder / name / "oof_predictions.csv"))
    CrossvalResults.model_validate(
        {
            **about(folder, "c", "crossval"), "metric": "accuracy", "direction": "max",
            "definitions": {"accuracy": ACCURACY.definition()}, "num_folds": num_folds, "folds": num_folds, "seed": 42,
            "metrics": {"one": "eval_accuracy", "two": "eval_accuracy"}, "dropped": {}, "trials": trials,
            "experiments": found,
            "comparisons": comparisons(found, metric="accuracy", num_folds=num_folds, predictions={}),
        }
    ).write(folder / "crossval_results.json")  # fmt: skip


def left_progressive(folder: Path) -> None:
    """Two candidates: one through all stages with a forecast, one that failed at once."""
    write_text(
        folder / "study.yaml",
        dump_yaml(ProgressiveStudy(name="p", experiment="transfer_bert", ratios=("0.5", "1.0"))),
    )
    stages = []
    for number, (ratio, score) in enumerate([(0.5, 0.71), (1.0, 0.7731)], 1):
        name = f"stage_{number}_{round(100 * ratio)}pct"
        result = left_run(folder / "rate_1" / name, name, score)
        forecast = {"at_rows": 2400, "value": 0.7852, "low": 0.7401, "high": 0.8149, "level": 0.9}
        stages.append(
            {
                "stage": number, "name": name, "ratio": ratio, "num_rows": round(2400 * ratio), "num_rows_in_all": 2400,
                "num_dev_rows": 300, "state": "completed", "score": score, "metrics": result.metrics, "best_epoch": 2,
                "checkpoint": "best_model.pt", "warm_start": None, "seconds": 62.5, "peak_memory_mb": 1311.5,
                "cpu_percent": 97.0, "batch_size": 16, "gradient_accumulation_steps": 2, "samples": 4800,
                "baseline": 0.55, "forecast": forecast if number == 1 else None,
            }
        )  # fmt: skip
    candidates = [
        {"name": "rate_1", "values": {RATE: 1e-4}, "state": "completed", "reason": None, "stages": stages},
        {
            "name": "rate_2",
            "values": {RATE: 1.0},
            "state": "diverged",
            "reason": "the loss is NaN",
            "stages": [],
        },
    ]
    trials = [
        trial(folder, "rate_1", RunResult("rate_1", "completed", metrics(0.7731), seconds=125.0)),
        trial(folder, "rate_2", RunResult("rate_2", "diverged", seconds=1.0, error="the loss is NaN")),
    ]
    ProgressiveResults.model_validate(
        {
            **about(folder, "p", "progressive"), "metric": "eval_accuracy", "direction": "max",
            "definitions": DEFINITIONS, "ratios": [0.5, 1.0], "baseline": 0.55, "seed": 42, "epochs_per_stage": 2,
            "effective_batch_size": 32, "stopped": None, "winner": "rate_1", "best_stage": "stage_2_100pct",
            "samples_trained": 7200, "stages": stages, "candidates": candidates, "experiments": trials,
        }
    ).write(folder / "progressive_training_results.json")  # fmt: skip


def left_unified(folder: Path) -> None:
    """A main run, two modules and a crossover that no baseline beats."""
    result = left_run(folder, "u", 0.8125)
    write_text(folder / "study.yaml", dump_yaml(UnifiedStudy(name="u", experiment="red_heart_tiny")))
    series = {
        "encoder": [Point(epoch, 0.8 - epoch / 40, 1.0 - epoch / 50) for epoch in range(1, 15)],
        "head": [Point(epoch, 0.5, 0.6 + epoch / 50) for epoch in range(1, 15)],
    }
    margin = {"value": 0.031, "low": 0.012, "high": 0.05, "level": 0.95, "num_rows": 300, "is_certain": True}
    names = {"last": ("baseline", 0.91), "search_greedy": ("crossover", 0.88)}
    crossed = {
        "kept": "search_greedy", "winner": "search_greedy", "verdict": "'search_greedy' beats every baseline",
        "margins": {"last": margin}, "selection_better": "min", "rows_better": "min", "num_evaluations": 50,
        "candidates": [
            {"name": name, "kind": kind, "selection": loss, "held_out": loss + 0.01, "modules": {"encoder": {"2": 1.0}}}
            for name, (kind, loss) in names.items()
        ],
    }  # fmt: skip
    values = about(folder, "u", "unified")
    UnifiedResults.model_validate(
        {
            **{key: values[key] for key in ("study", "kind", "path", "state", "targets")}, "learning_rate": 3e-5, "sweep": None,
            "result": result.as_dict(), "sweet_spots": analysis_record(series),
            "crossover": crossed,
        }
    ).write(folder / "unified_results.json")  # fmt: skip


STUDIES = {
    "batch": left_batch,
    "seeds": left_seeds,
    "sweep": left_sweep,
    "crossval": left_crossval,
    "progressive": left_progressive,
    "unified": left_unified,
}
