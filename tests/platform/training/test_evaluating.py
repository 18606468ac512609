"""Scoring a final model needs nothing that training alone needed."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

from dure.config import dump_yaml
from dure.config.loading import load_record
from dure.events import silent
from dure.family import load_family
from dure.runs.folder import RunFolder
from dure.training import trainer
from dure.training.evaluating import evaluate_table
from dure.training.run import RunRequest, run


def test_a_model_is_scored_where_it_could_not_have_been_trained(tiny, cpu, tmp_path, monkeypatch) -> None:
    experiment = tiny("bert", "full", max_steps=2, eval_every=2)
    run(RunRequest(experiment, cpu, tmp_path / "run"))
    table = written(load_family(experiment).sample("dev"), tmp_path / "rows.csv")
    plain = evaluate_table(tmp_path / "run", table, profile=cpu, notify=silent)
    record: Path = RunFolder(tmp_path / "run").experiment
    trained_so = {"training.compile": True, "training.ema": 0.9, "objective.class_weights": "balanced"}
    record.write_text(dump_yaml(load_record(record).with_(trained_so)), encoding="utf-8")
    monkeypatch.setattr(shutil, "which", lambda name: None)  # there is no compiler
    monkeypatch.setattr(trainer, "WeightAverage", None)  # nor memory for the weights twice
    shared_out = cpu.model_copy(update={"deepspeed": "zero2"})
    found = evaluate_table(tmp_path / "run", table, profile=shared_out, notify=silent)
    assert scores(found) == scores(plain)
    # Weights of classes would be those of the table, and not those that the model was trained with.
    assert found["notes"] == plain["notes"]


def test_nothing_is_told_of_a_training(tiny, cpu, tmp_path) -> None:
    experiment = tiny("llama", "full", task={"validate": "loss"}, best_metric="eval_loss", max_steps=1)
    run(RunRequest(experiment, cpu, tmp_path / "run"))
    told: list[str] = []
    table = written(load_family(experiment).sample("dev"), tmp_path / "rows.csv")
    evaluate_table(tmp_path / "run", table, profile=cpu, notify=told.append)
    assert told
    assert not any("a step sees" in line for line in told)


def written(rows: list[dict[str, str]], file: Path) -> str:
    """Write rows as a table, and return its name."""
    names = {"text": "dialogue", "target": "summary"} if "target" in rows[0] else {}
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([names.get(name, name) for name in rows[0]])
        writer.writerows(row.values() for row in rows)
    return str(file)


def scores(found: dict[str, Any]) -> dict[str, float]:
    """Return the figures of an evaluation that do not depend on the clock."""
    timed = ("runtime", "per_second")
    return {name: value for name, value in found["metrics"].items() if not name.endswith(timed)}
