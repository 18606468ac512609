"""``training.compile`` against plain layers: CPU seconds of the same optimiser steps, and what compiling takes.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.compile --data FOLDER [--kinds bert t5] [--rows 2000]

FOLDER holds ``dialogsum/train.csv`` and ``nsmc/train_small.csv``. A T5 and a BERT of 2 layers and width 128 from random
weights train one epoch in steps of 32 rows, without validation, plain and then compiled: the same rows in every step. Of
each step the CPU time is taken. The ratio is the median over the steps of compiled by plain, which leaves out the few
steps that compile; what is compiled is compiled anew, in this process and by its children, whose time counts too. The
table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from dure.config import load_profile, rehearsal_of
from dure.config.schema import Experiment
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer

KINDS: dict[str, dict[str, Any]] = {
    "bert": {
        "family": "trainables.transfer",
        "data": {
            "train": "nsmc/train_small.csv",
            "dev": None,
            "columns": {"text": "text", "label": "label"},
        },
        "tokenizer": {"encoder_max_len": 128},
    },
    "t5": {
        "family": "trainables.summarization",
        "data": {
            "train": "dialogsum/train.csv",
            "dev": None,
            "columns": {"text": "dialogue", "target": "summary"},
        },
        "tokenizer": {"encoder_max_len": 256, "decoder_max_len": 64},
        "task": {"rouge_tokenizer": "character"},
    },
}


class StepTimes(TrainerCallback):
    """The CPU seconds of every step, from its first micro-batch to the end of its update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Begin to count."""
        self._began = time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Count."""
        self.seconds.append(time.process_time() - self._began)


def experiment_of(kind: str, data: Path, num_rows: int, *, compiles: bool) -> Experiment:
    """Return what is trained."""
    said = KINDS[kind]
    sizes = said["tokenizer"]
    return rehearsal_of(
        Experiment.model_validate(
            {
                **said,
                "data": {**said["data"], "train": str(data / said["data"]["train"])},
                "experiment": {"name": "compile"},
                "model": {"checkpoint": "none", "architecture": kind},
                "training": {"epochs": 1, "batch_size": 32, "compile": compiles, "log_every": 1000, "best_metric": "eval_loss"},
                "rehearsal": {
                    "hidden_size": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 8000, "max_steps": 100_000,
                    "max_train_rows": num_rows, "max_encoder_len": sizes["encoder_max_len"],
                    "max_decoder_len": sizes.get("decoder_max_len", 64), "learning_rate_scale": 10,
                },
            }
        )
    ).with_({"training.eval_every": "epoch"})  # fmt: skip


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def trained(kind: str, data: Path, num_rows: int, folder: Path, *, compiles: bool) -> dict[str, Any]:
    """Train one epoch and return what it took."""
    experiment = experiment_of(kind, data, num_rows, compiles=compiles)
    family, cpu = load_family(experiment), load_profile("cpu")
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=cpu, folder=RunFolder(folder)
    )
    times = StepTimes()
    trainer.hf.add_callback(times)
    began = cpu_seconds()
    trainer.train()
    compiled = trainer.layers if compiles else None
    return {
        "rows": len(corpus.train),
        "steps": times.seconds,
        "cpu_seconds": cpu_seconds() - began,
        "graphs": compiled.num_graphs if compiled else 0,
        "compiling_wall_seconds": compiled.seconds if compiled else 0.0,
    }


def measured(kind: str, data: Path, num_rows: int, folder: Path) -> dict[str, Any]:
    """Train both ways and compare them step by step."""
    plain, compiled = (
        trained(kind, data, num_rows, folder / f"{kind} {way}", compiles=way) for way in (False, True)
    )
    ratios = [after / before for before, after in zip(plain["steps"], compiled["steps"], strict=True)]
    return {
        "plain": plain,
        "compiled": compiled,
        "ratio": median(ratios),
        "ratio_with_compiling": compiled["cpu_seconds"] / plain["cpu_seconds"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every kind, and print table and JSON."""
    parser = argparse.ArgumentParser(description="Compiled layers against plain ones")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as top:
        # Nothing that was compiled before is found again, and compiling has no pool of processes of its own.
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{top}/inductor", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        for kind in options.kinds:
            found[kind] = measured(kind, options.data, options.rows, Path(top))
    table = Table(title=f"{options.rows} rows, 32 a step, one epoch; load {os.getloadavg()[0]:.1f}")
    for heading in (
        "model", "graphs", "compiling wall s", "CPU s a step", "compiled", "ratio", "CPU s in all", "compiled", "ratio",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for kind, each in found.items():
        plain, compiled = each["plain"], each["compiled"]
        table.add_row(
            kind, str(compiled["graphs"]), f"{compiled['compiling_wall_seconds']:.1f}",
            f"{median(plain['steps']):.3f}", f"{median(compiled['steps']):.3f}", f"{each['ratio']:.2f}",
            f"{plain['cpu_seconds']:.1f}", f"{compiled['cpu_seconds']:.1f}", f"{each['ratio_with_compiling']:.2f}",
        )  # fmt: skip
    Console(stderr=True, width=130).print(table)
    print(json.dumps({"benchmark": "compile", "load": os.getloadavg()[0], "kinds": found}, indent=2))


if __name__ == "__main__":
    main()
