"""Folders of runs as runs leave them, with scores that were drawn and not trained."""

from __future__ import annotations

import json

import numpy as np

from dure.config import load_experiment
from dure.config.loading import dump_yaml
from dure.data.writing import write_rows
from dure.metrics.metric import Metric, definitions
from dure.runs.folder import RunFolder, RunResult

METRICS = (
    Metric("eval_accuracy", "max", "share"),
    Metric("eval_macro_f1", "max", "share"),
    Metric("eval_rouge1", "max", "share"),
)
BASE = load_experiment("transfer_bert")


def made_run(
    path,
    hits,
    *,
    settings=None,
    name=None,
    state="completed",
    table="t",
    rows=None,
    notes=None,
    metrics=None,
    texts=None,
):
    """Write the folder of a run whose test rows it got right or not (``hits``; None of a run without test rows)."""
    changes = {"experiment.name": name or path.name, **(settings or {})}
    experiment = BASE.with_(changes)
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path)
    run.experiment.write_text(dump_yaml(experiment), encoding="utf-8")
    figures = {"eval_accuracy": 0.7, "eval_loss": 1.0, "baseline_accuracy": 0.5, "peak_memory_mb": 100.0}
    if hits is not None:
        figures |= {"test_accuracy": float(np.mean(hits)), "test_macro_f1": float(np.mean(hits)) - 0.01}
        numbers = list(range(len(hits))) if rows is None else rows
        write_rows(
            run.predictions,
            ["row", "id", "text", "label", "predicted_label", "score_accuracy", "score_loss"],
            [
                [
                    number,
                    f"id{number}",
                    (texts or {}).get(number, f"글 {number}\n{table}"),
                    "a",
                    "a" if hit else "b",
                    hit,
                    1 - hit,
                ]
                for number, hit in zip(numbers, hits, strict=True)
            ],
        )
    run.environment.write_text(
        json.dumps({"data": {"train": "x", "dev": "y", **({} if hits is None else {"test": table})}}),
        encoding="utf-8",
    )
    lines = [
        {"kind": "train", "step": 1, "epoch": 0.5, "loss": 1.2},
        {"kind": "eval", "step": 2, "epoch": 1.0, "eval_accuracy": 0.6},
        {"kind": "eval", "step": 4, "epoch": 2.0, "eval_accuracy": 0.7},
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run.write_result(
        RunResult(
            experiment.experiment.name,
            state,
            {**figures, **(notes or {}), **(metrics or {})},
            seconds=10.0,
            error=None if state == "completed" else "CUDA ran away",
            best_metric="eval_accuracy",
            definitions=definitions(METRICS),
        )
    )
    return path


def drawn_hits(rng, hard, effect, seed_effect):
    """Draw whether a model is right on every row: easier rows more often, and a setting's effect on all of them."""
    return (rng.random(len(hard)) < np.clip(hard + effect + seed_effect, 0, 1)).astype(float)
