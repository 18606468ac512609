from __future__ import annotations

import io

from rich.console import Console

from dure.studies.unified.report import unified_table


def shown(renderable):
    file = io.StringIO()
    Console(file=file, width=200, color_system=None).print(renderable)
    return file.getvalue()


def test_a_rate_that_no_sweep_chose_is_said_to_be_the_configured_one():
    results = {
        "result": {"name": "u", "state": "completed", "metrics": {"eval_loss": 1.0}, "seconds": 3.0},
        "path": "out", "learning_rate": 1e-4, "sweep": {"training.learning_rate": 1e-4},
        "sweep_verdict": {"winner": None, "sentences": ["No winner: all 5 points tie at 25.00."]},
        "sweet_spots": None, "crossover": None,
    }  # fmt: skip
    text = shown(unified_table(results))
    assert "sweep: No winner: all 5 points tie at 25.00." in text
    assert "learning rate 0.0001 (as configured: the sweep names no winner)" in text


def test_a_training_on_a_few_rows_leads_with_the_memory_that_it_took():
    metrics = {"eval_loss": 1.0, "peak_memory_mb": 1234.5, "unreleased_memory_mb": 2.0, "num_oom": 1}
    results = {
        "result": {"name": "local", "state": "completed", "metrics": metrics, "seconds": 3.0},
        "path": "out", "learning_rate": 1e-4, "sweep": None, "sweet_spots": None, "crossover": None,
    }  # fmt: skip
    first = shown(unified_table(results)).splitlines()[0]
    assert first == "memory: 1.21 GiB at the most, 2 MiB not given back, 1 times out of memory, CPU 0 %"
