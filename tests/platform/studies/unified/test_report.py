from __future__ import annotations

import io

from rich.console import Console

from dure.runs.folder import RunResult
from dure.studies.sweep.verdict import SweepVerdict
from dure.studies.unified.report import unified_table
from dure.studies.unified.results import UnifiedResults


def shown(renderable):
    file = io.StringIO()
    Console(file=file, width=200, color_system=None).print(renderable)
    return file.getvalue()


def unified(metrics, sweep=None, verdict=None):
    return UnifiedResults(
        study="u", kind="unified", state="completed", path="out", learning_rate=1e-4, sweep=sweep,
        sweep_verdict=verdict, result=RunResult("u", "completed", metrics, seconds=3.0),
    )  # fmt: skip


def test_a_rate_that_no_sweep_chose_is_said_to_be_the_configured_one():
    verdict = SweepVerdict.model_construct(winner=None, sentences=["No winner: all 5 points tie at 25.00."])
    text = shown(unified_table(unified({"eval_loss": 1.0}, {"training.learning_rate": 1e-4}, verdict)))
    assert "sweep: No winner: all 5 points tie at 25.00." in text
    assert "learning rate 0.0001 (as configured: the sweep names no winner)" in text


def test_a_training_on_a_few_rows_leads_with_the_memory_that_it_took():
    metrics = {"eval_loss": 1.0, "peak_memory_mb": 1234.5, "unreleased_memory_mb": 2.0, "num_oom": 1}
    first = shown(unified_table(unified(metrics))).splitlines()[0]
    assert first == "memory: 1.21 GiB at the most, 2 MiB not given back, 1 times out of memory, CPU 0 %"
