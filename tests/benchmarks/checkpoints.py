"""What a checkpoint takes from training: written while training waits for it, and behind training.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.checkpoints [--saves 3] [--steps 8] [--repeats 1] [--width 512] [--layers 6]

A T5 of random weights (60.5M parameters by default: a checkpoint of 726 MB) trains the same steps without a checkpoint,
with checkpoints that training waits for (what dure does where memory is short, which is pretended here), and with
checkpoints behind it; in turn within every repeat. The clock runs from the end of the first step to the end of the last
one, before whose checkpoint it stops: the end of a training waits for its checkpoint either way. Wall time says what
saves take from training, beside the training without them as the limit; with one thread for training the second core is
free for the writing, with ``OMP_NUM_THREADS=2`` training takes both. What stands still for a save, in which no step goes
on, is the figure to look at on a machine with other work. The rows go to stderr as a table and to stdout as JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import torch
from transformers import T5Config, T5ForConditionalGeneration, TrainerCallback

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.runs.folder import RunFolder
from dure.training import memory
from dure.training.trainer import ModelTrainer
from trainables.summarization import Summarization

from .table import DURE, Row, Spent, hand_over
from .throughput import rows, tokenizer

WITHOUT, WAITS = "without", "training waits"
WAYS = (WITHOUT, WAITS, DURE)
ASKED = 10.0
"""Times as long a save that training waits for takes from it: 90 percent of a save are hidden."""
BATCH_SIZE, LONGEST, VOCABULARY = 2, 64, 32_000


class Clock(TrainerCallback):  # type: ignore[misc]
    """Takes the time from the end of the first step to that of the last.

    Args:
        trainer: The trainer, in whose loop it also takes the time in which no step goes on for the sake of a save.
    """

    def __init__(self, trainer: Any) -> None:
        self.began: dict[str, float] = {}
        self.taken: dict[str, float] = {}
        self.stood = 0.0
        for name in ("_save_checkpoint", "wait_for_copy", "settle_checkpoint"):
            setattr(trainer, name, self._timed(getattr(trainer, name)))
        self._depth = 0

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            self._depth += 1
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self._depth -= 1
                self.stood += (time.perf_counter() - began) * (self._depth == 0)

        return timed

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the clocks."""
        now = {"wall": time.perf_counter(), "cpu": time.process_time(), "stood": self.stood}
        if state.global_step == 1:
            self.began = now
        if state.global_step == state.max_steps:
            self.taken = {name: now[name] - self.began[name] for name in now}


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
                "eval_every": 10 * steps if way == WITHOUT else options.steps,
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
    clock = Clock(trainer.hf)
    trainer.hf.add_callback(clock)
    free = 0 if way == WAITS else memory.free_on_host()
    with patch.object(memory, "free_on_host", lambda: free):
        trainer.hf.train()
    total = float(sum(parameter.detach().double().sum() for parameter in model.parameters()))
    return clock.taken | {"sum": total, "parameters": sum(p.numel() for p in model.parameters())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train in all ways in turn, and print table and JSON."""
    parser = argparse.ArgumentParser(description="What a checkpoint takes from training")
    for name, default in (("saves", 3), ("steps", 8), ("repeats", 1), ("width", 512), ("layers", 6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(arguments)
    dataset = rows(BATCH_SIZE * options.steps * (options.saves + 1)).map(
        lambda row: {"input_ids": row["input_ids"][:LONGEST], "length": min(row["length"], LONGEST)}
    )
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with redirect_stdout(sys.stderr):
        for _ in range(options.repeats):
            for way in found:
                with tempfile.TemporaryDirectory() as folder:
                    found[way].append(trained(way, options, dataset, Path(folder)))
    if len({each["sum"] for every in found.values() for each in every}) > 1:
        raise SystemExit("the ways did not train the same")
    stood = {
        way: [Spent(each["stood"] / options.saves, each["wall"]) for each in found[way]]
        for way in (DURE, WAITS)
    }
    walls = {way: [Spent(each["wall"], each["wall"]) for each in every] for way, every in found.items()}
    unit = f"{found[DURE][0]['parameters'] / 1e6:.0f}M parameters, {torch.get_num_threads()} thread(s)"
    hand_over(
        "checkpoints",
        [
            Row("training with saves", walls, options.saves, limit=WITHOUT, unit=f"wall s, {unit}"),
            Row("standing still for a save", stood, options.saves, ASKED, unit=f"s, {unit}"),
        ],
        seconds=found,
    )


if __name__ == "__main__":
    main()
