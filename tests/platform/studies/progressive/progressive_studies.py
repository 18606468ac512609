"""Summaries of progressive studies as the tests of their table and picture need them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dure.metrics.metric import undeclared
from dure.studies.progressive.results import ProgressiveResults

FORECAST = {"at_rows": 2600, "value": 0.7852, "low": 0.7401, "high": 0.8149, "level": 0.9}


def stage(number: int, ratio: float, score: float | None, **more: Any) -> dict[str, Any]:
    name = f"stage_{number}_{round(100 * ratio)}pct"
    return {
        "stage": number,
        "name": name,
        "ratio": ratio,
        "num_rows": round(2600 * ratio),
        "num_rows_in_all": 2600,
        "num_dev_rows": None,
        "best_epoch": 1,
        "warm_start": None,
        "baseline": None,
        "state": "completed",
        "score": score,
        "metrics": {} if score is None else {"eval_accuracy": score, "eval_loss": 1.25 - score},
        "checkpoint": f"outputs/p/{name}/checkpoints/best_model.pt",
        "seconds": 62.0 * number,
        "peak_memory_mb": 800.0 + 512 * number,
        "cpu_percent": 97.0,
        "batch_size": 2 * number,
        "gradient_accumulation_steps": 16 // number,
        "samples": round(2 * 2600 * ratio),
        "forecast": None,
        **more,
    }


def candidate(
    rate: float, state: str, stages: list[dict[str, Any]], reason: str | None = None
) -> dict[str, Any]:
    return {
        "name": f"rate_{rate:g}",
        "values": {"training.learning_rate": rate},
        "state": state,
        "reason": reason,
        "stages": stages,
    }


def summary(**more: Any) -> ProgressiveResults:
    stages, metric, direction = (
        more.get("stages", ()),
        more.get("metric", "eval_accuracy"),
        more.get("direction", "max"),
    )
    scores = {each["name"]: each["score"] for each in reversed(stages)}
    values = {
        "study": "transfer_bert",
        "kind": "progressive",
        "path": "outputs/p",
        "state": "completed",
        "started": "2026-01-01T00:00:00",
        "seconds": 312.0,
        "metric": "eval_accuracy",
        "direction": "max",
        "definitions": {},
        "ratios": [0.1, 0.2, 0.5, 1.0],
        "baseline": 0.509,
        "seed": 42,
        "epochs_per_stage": 2,
        "effective_batch_size": 32,
        "stopped": None,
        "winner": None,
        "best_stage": replace(undeclared(metric), direction=direction).best(scores),
        "samples_trained": 0,
        "final_model": None,
        "stages": [],
        "candidates": [candidate(1e-4, "pending", stages)],
        "experiments": [],
        **more,
    }
    return ProgressiveResults.model_validate(values)


def one_candidate(**more: Any) -> ProgressiveResults:
    stages = [
        stage(1, 0.1, 0.61, **more),
        stage(2, 0.2, 0.7, **more),
        stage(3, 0.5, 0.7549, forecast=FORECAST, **more),
        stage(4, 1.0, 0.7791, **more),
    ]
    return summary(
        winner="transfer_bert",
        stages=stages,
        candidates=[{**candidate(1e-4, "completed", stages), "name": "transfer_bert", "values": {}}],
        samples_trained=9360,
        final_model="outputs/p/final_model",
    )


def several_candidates() -> ProgressiveResults:
    won = [stage(1, 0.1, 0.65), stage(2, 1.0, 0.78)]
    return summary(
        winner="rate_0.0005",
        stages=won,
        candidates=[
            candidate(1e-5, "stopped", [stage(1, 0.1, 0.55)], "beaten at 10 %"),
            candidate(5e-4, "completed", won),
            candidate(1e-4, "stopped", [stage(1, 0.1, 0.6)], "beaten at 10 %"),
            candidate(1e-2, "diverged", [], "the loss is NaN"),
        ],
        experiments=[
            {
                "name": "rate_0.01",
                "state": "diverged",
                "error": "Diverged: the loss is NaN\n at 3",
                "metrics": {},
                "seconds": 0.0,
                "path": "outputs/p/rate_0.01",
            }
        ],
        samples_trained=6760,
    )
