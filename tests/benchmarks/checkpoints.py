"""What a checkpoint takes from training: written while training waits for it, and behind training.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.checkpoints [--saves 3] [--steps 8] [--repeats 1] [--width 512] [--layers 6]

A T5 of random weights (60.5M parameters by default: a checkpoint of 726 MB) trains the same steps without a checkpoint,
with checkpoints that training waits for (what dure does where memory is short, which is pretended here), and with
checkpoints behind it; in turn within every repeat. The clock runs from the end of the first step to the end of the last
one, before whose checkpoint it stops: the end of a training waits for its checkpoint either way. What a save costs is the
difference to the training without, by the number of saves; what is hidden is the part of the cost that is gone. With one
thread for training the second core is free for the writing; with ``OMP_NUM_THREADS=2`` training takes both. The table goes
to stderr and the JSON to stdout.
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
from statistics import median
from typing import Any
from unittest.mock import patch

import datasets
import torch
from rich.console import Console
from rich.table import Table
from transformers import T5Config, T5ForConditionalGeneration, TrainerCallback

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.runs.folder import RunFolder
from dure.training import memory
from dure.training.trainer import ModelTrainer
from trainables.summarization import Summarization

from .throughput import rows, tokenizer

WAYS = ("without", "training waits", "behind")
BATCH_SIZE, VOCABULARY = 2, 32_000


class Clock(TrainerCallback):  # type: ignore[misc]
    """Takes the time from the end of the first step to that of the last, in wall and CPU seconds."""

    def __init__(self) -> None:
        self.began = self.taken = (0.0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at both clocks."""
        now = time.perf_counter(), time.process_time()
        if state.global_step == 1:
            self.began = now
        if state.global_step == state.max_steps:
            self.taken = now[0] - self.began[0], now[1] - self.began[1]


def trained(
    way: str, options: argparse.Namespace, dataset: datasets.Dataset, folder: Path
) -> dict[str, float]:
    """Train once and return wall and CPU seconds, and the parameters' sum, by which all ways are the same."""
    steps = options.steps * (options.saves + 1)
    experiment = Experiment.model_validate(
        {
            "family": "trainables.summarization",
            "experiment": {"name": "saving"},
            "model": {"checkpoint": "none"},
            "training": {
                "epochs": 1, "batch_size": BATCH_SIZE, "log_every": 1000, "max_steps": steps,
                "eval_every": 10 * steps if way == "without" else options.steps,
            },
            "task": {"rouge_tokenizer": "character"},
        }
    )  # fmt: skip
    torch.manual_seed(42)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=options.width, d_kv=64, d_ff=4 * options.width, num_layers=options.layers,
        num_heads=options.width // 64, decoder_start_token_id=0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    trainer = ModelTrainer(
        Summarization(experiment), model, tokenizer(), dataset, None, profile=load_profile("cpu"),
        folder=RunFolder(folder),
    )  # fmt: skip
    clock = Clock()
    trainer.hf.add_callback(clock)
    free = 0 if way == "training waits" else memory.free_on_host()
    with patch.object(memory, "free_on_host", lambda: free):
        trainer.hf.train()
    wall, cpu = clock.taken
    total = float(sum(parameter.detach().double().sum() for parameter in model.parameters()))
    return {"wall": wall, "cpu": cpu, "sum": total, "parameters": sum(p.numel() for p in model.parameters())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train in all ways in turn, and print table and JSON."""
    parser = argparse.ArgumentParser(description="What a checkpoint takes from training")
    for name, default in (("saves", 3), ("steps", 8), ("repeats", 1), ("width", 512), ("layers", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    dataset = rows(BATCH_SIZE * options.steps * (options.saves + 1))
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with redirect_stdout(sys.stderr):
        for _ in range(options.repeats):
            for way in WAYS:
                with tempfile.TemporaryDirectory(dir=".") as folder:
                    found[way].append(trained(way, options, dataset, Path(folder)))
    if len({each["sum"] for every in found.values() for each in every}) > 1:
        raise SystemExit("the ways did not train the same")
    middle = {
        way: {name: median(each[name] for each in every) for name in ("wall", "cpu")}
        for way, every in found.items()
    }
    cost = {
        way: {name: (middle[way][name] - middle["without"][name]) / options.saves for name in ("wall", "cpu")}
        for way in WAYS[1:]
    }
    hidden = 1 - cost["behind"]["wall"] / cost["training waits"]["wall"]
    parameters = found["behind"][0]["parameters"]
    table = Table(
        title=f"{options.saves} saves of {parameters / 1e6:.1f}M parameters, one in {options.steps} steps; "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    )
    for heading in ("checkpoints", "wall s", "CPU s", "wall s a save", "CPU s a save"):
        table.add_column(heading)
    for way in WAYS:
        each = [f"{cost[way][name]:.2f}" if way in cost else "–" for name in ("wall", "cpu")]
        table.add_row(way, *(f"{middle[way][name]:.1f}" for name in ("wall", "cpu")), *each)
    table.caption = f"hidden: {hidden:.1%} of the wall time of a save"
    Console(stderr=True, width=110).print(table)
    record = {
        "benchmark": "checkpoints", "parameters": parameters, "options": vars(options), "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(), "seconds": found, "a_save": cost, "hidden": hidden,
    }  # fmt: skip
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
