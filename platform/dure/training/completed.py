"""The result of a run that came to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dure.family import Family
from dure.family.corpus import Corpus
from dure.metrics.metric import BASELINE, TEST, definitions, under
from dure.runs.folder import RunResult
from dure.training import memory

if TYPE_CHECKING:
    from dure.training.run import RunRequest


def completed_result(
    request: RunRequest, family: Family, corpus: Corpus, outcome: Mapping[str, Any], usage: memory.Usage
) -> RunResult:
    """Return the result of a run that came to its end, with what the trivial predictor scores on validation."""
    return RunResult(
        name=request.experiment.name,
        state="completed",
        metrics={
            **outcome["eval_metrics"],
            **outcome["untrained_metrics"],
            **outcome["tested"],
            **outcome["speed"],
            **({} if outcome["train_loss"] is None else {"train_loss": outcome["train_loss"]}),
            "train_runtime": round(outcome["seconds"], 3),
            **_baseline(family, corpus, is_tested=bool(outcome["tested"])),
            **family.metric_notes(),
            **_kinds(family),
            **({} if request.experiment.training.ema is None else {"final_weights": "ema"}),
            "best_step": outcome["best_step"] or outcome["steps"],
            "steps": outcome["steps"],
            "num_oom": outcome["num_oom"],
            "num_restarts": 0 if request.restarts is None else request.restarts.num,
            "num_train_rows": len(corpus.train),
            "num_rows_in_all": corpus.num_rows_in_all,
            "num_dev_rows": 0 if corpus.dev is None else len(corpus.dev),
            **({} if corpus.test is None else {"num_test_rows": len(corpus.test)}),
            "peak_memory_mb": round(usage.peak_mb, 1),
            "cpu_percent": round(usage.cpu_percent),
        },
        best_checkpoint=outcome["best_checkpoint"],
        final_model_path=request.folder().final_model.name,
        seconds=round(outcome["seconds"], 3),
        best_metric=family.best_metric.name,
        definitions=definitions([*family.metrics, family.best_metric]),
        targets=tuple(target.reached(outcome["eval_metrics"]) for target in family.targets),
    )


def _kinds(family: Family) -> dict[str, str]:
    """Return what the loss is a loss of, and of what else that is true, such as ``perplexity_kind``."""
    loss = family.measured_by("eval_loss")
    beside = (
        metric.name.removeprefix("eval_")
        for metric in family.metrics
        if not metric.name.startswith("eval_loss") and family.measured_by(metric.name) == loss
    )
    return {f"{name}_kind": loss for name in ("loss", *beside)}


def _baseline(family: Family, corpus: Corpus, *, is_tested: bool) -> dict[str, float]:
    """Return what the trivial predictor scores: ``baseline_accuracy`` on validation, ``baseline_test_accuracy`` on the test rows."""
    found: dict[str, float] = {}
    for where, rows in (("", corpus.dev), (TEST, corpus.test if is_tested else None)):
        figures = {} if rows is None else family.baseline(corpus.tokenizer, corpus.train, rows)
        found |= {under(name, BASELINE + where): value for name, value in figures.items()}
    return found
