"""Batches cut by tokens against batches of rows: padding, passes and CPU time of the same optimiser steps.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.batch_tokens --data FOLDER [--rows 2000] [--ways '8 x 4' '2048 tokens' …]

FOLDER holds DialogSum's train.csv. A T5 of 2 layers and width 128 from random weights, a vocabulary of 8,000 trained on the
rows, limits 512/128, one epoch in steps of 32 rows, without validation; every way trains the rows of a step that the others
train, so that losses differ by rounding and dropout only. Positions are those of inputs and targets; padding is the part of
them that holds no token. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dure.config import load_profile, rehearsal_of
from dure.config.schema import Experiment
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer

WAYS: dict[str, dict[str, int]] = {
    "8 x 4": {"batch_size": 8, "gradient_accumulation_steps": 4},
    "32 x 1": {"batch_size": 32},
    "2048 tokens": {"batch_size": 32, "batch_tokens": 2048},
    "4096 tokens": {"batch_size": 32, "batch_tokens": 4096},
}


def experiment_of(way: str, data: Path, num_rows: int) -> Experiment:
    """Return what one way trains."""
    return rehearsal_of(
        Experiment.model_validate(
            {
                "family": "trainables.summarization",
                "experiment": {"name": "batch_tokens"},
                "model": {"checkpoint": "none", "architecture": "t5"},
                "tokenizer": {"encoder_max_len": 512, "decoder_max_len": 128},
                "data": {
                    "train": str(data / "train.csv"), "dev": None,
                    "columns": {"text": "dialogue", "target": "summary"},
                },
                "training": {"epochs": 1, "log_every": 10, **WAYS[way]},
                "task": {"rouge_tokenizer": "character"},
                "rehearsal": {
                    "hidden_size": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 8000, "max_steps": 100_000,
                    "max_train_rows": num_rows, "max_encoder_len": 512, "max_decoder_len": 128,
                    "learning_rate_scale": 10,
                },
            }
        )
    ).with_({"training.eval_every": "epoch"})  # fmt: skip


def measured(way: str, data: Path, num_rows: int, folder: Path) -> dict[str, Any]:
    """Train one epoch and return what it computed."""
    experiment = experiment_of(way, data, num_rows)
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, load_profile("cpu"))
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=load_profile("cpu"), folder=RunFolder(folder)
    )  # fmt: skip
    loaded = [*trainer.hf.get_train_dataloader()]
    batches = [batch for each in loaded for batch in (each if isinstance(each, list) else [each])]
    inputs = [sum(batch["attention_mask"].numel() for batch in batches)]
    inputs.append(sum(int(batch["attention_mask"].sum()) for batch in batches))
    targets = [sum(batch["labels"].numel() for batch in batches)]
    targets.append(sum(int((batch["labels"] >= 0).sum()) for batch in batches))
    largest = max(batch["attention_mask"].numel() + batch["labels"].numel() for batch in batches)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    losses = [each["loss"] for each in read_json_lines(folder / "metrics.jsonl") if "loss" in each]
    return {
        "rows": len(corpus.train), "passes": len(batches), "inputs": inputs[0], "targets": targets[0],
        "padding_of_inputs": 1 - inputs[1] / inputs[0], "padding_of_targets": 1 - targets[1] / targets[0],
        "largest": largest, "cpu_seconds": seconds, "losses": losses,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every way, and print table and JSON."""
    parser = argparse.ArgumentParser(description="Batches cut by tokens against batches of rows")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    with redirect_stdout(sys.stderr):
        for way in options.ways:
            with tempfile.TemporaryDirectory() as folder:
                found[way] = measured(way, options.data, options.rows, Path(folder))
    table = Table(
        title=f"{options.rows} rows of DialogSum, 32 a step, one epoch; load {os.getloadavg()[0]:.1f}"
    )
    for heading in (
        "batches", "passes", "input positions", "padding", "target positions", "padding", "largest pass", "CPU s",
        "last loss",
    ):  # fmt: skip
        table.add_column(heading)
    for way, each in found.items():
        table.add_row(
            way, str(each["passes"]), f"{each['inputs']:,}", f"{each['padding_of_inputs']:.1%}",
            f"{each['targets']:,}", f"{each['padding_of_targets']:.1%}", f"{each['largest']:,}",
            f"{each['cpu_seconds']:.1f}", f"{each['losses'][-1]:.3f}",
        )  # fmt: skip
    Console(stderr=True, width=130).print(table)
    print(json.dumps({"benchmark": "batch_tokens", "load": os.getloadavg()[0], "ways": found}, indent=2))


if __name__ == "__main__":
    main()
