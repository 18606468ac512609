"""DeepSpeed ZeRO on two CPU workers: the same losses as plain training, and a step of Red Heart with 730M parameters.

    python -m tests.benchmarks.zero [--steps 20]
    python -m tests.benchmarks.zero --preset 730m [--accumulation 2] [--free-gb 3]

The first trains red_heart_tiny on Ray Train's workers plainly and under ZeRO 0 to 3, in fp32 and in bf16, with the same
rows, and prints how far the losses of all steps lie from those of plain training. What rounding alone does is measured by
plain training with its sums in another order: of the same rows on one worker, and in halved micro-batches. So that no
other random numbers come with that, nothing is dropped out, R-Drop is off, and the rows fill all steps. The second takes
one optimizer step of red_heart_730m under ZeRO 3 in bf16, with fewer accumulated passes than the experiment's 32, and
saves nothing. Its memory is that of this process and all below it, Ray's among them, looked at every half second; it ends
when the machine has less than ``--free-gb`` left. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from ray.train.torch import TorchConfig, TorchTrainer
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback, set_seed

from dure.config import load_experiment, load_profile
from dure.config.schema import Profile
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines, write_json
from dure.runs.folder import RunFolder
from dure.runtime.cluster import cluster
from dure.runtime.fit import fit, scaling
from dure.training.run import RunRequest
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker

ROWS = 192
"""A multiple of the batch of 16."""


@dataclass(frozen=True)
class Way:
    """One way of training with the same rows in every step."""

    name: str
    """What it is called in the table."""
    stage: int | None = None
    """ZeRO stage; plain training without one."""
    num_workers: int = 2
    """Workers on a CPU."""
    accumulation: int = 1
    """Micro-batches that make up a step."""

    def profile(self, folder: Path) -> Profile:
        """Return the machine, with its DeepSpeed settings written into a folder."""
        profile = load_profile("cpu").model_copy(update={"num_workers": self.num_workers})
        if self.stage is None:
            return profile
        path = folder / f"zero{self.stage}.json"
        zero = {"stage": self.stage, "stage3_param_persistence_threshold": 1000}
        write_json(path, {"zero_optimization": zero})
        return profile.model_copy(update={"deepspeed": str(path)})


PLAIN = Way("plain")
WAYS = (
    PLAIN,
    Way("plain, 1 worker", num_workers=1),
    Way("plain, half batches", accumulation=2),
    *(Way(f"ZeRO {stage}", stage) for stage in range(4)),
)


def without_dropout(folder: Path) -> Path:
    """Write the model that all ways begin with, and its tokenizer, into a folder and return it."""
    experiment = load_experiment("red_heart_tiny", [f"data.max_train_rows={ROWS}"])
    family = load_family(experiment)
    tokenizer = load_corpus(family, notify=print).tokenizer
    model = family.load_model(tokenizer, load_profile("cpu"))
    model.config.dropout = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def losses(steps: int, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Train in every way; return the losses of all steps and the seconds, by precision and way."""
    checkpoint = without_dropout(folder / "model")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for precision in ("fp32", "bf16"):
        for way in WAYS:
            experiment = load_experiment(
                "red_heart_tiny",
                [
                    f"model.checkpoint={checkpoint}", "objective.r_drop=0", f"training.precision={precision}",
                    f"training.max_steps={steps}", f"training.eval_every={steps}", "training.log_every=1",
                    f"training.batch_size={16 // way.accumulation}",
                    f"training.gradient_accumulation_steps={way.accumulation}",
                    f"data.max_train_rows={ROWS}", "data.max_dev_rows=8",
                ],
            )  # fmt: skip
            path = folder / f"{precision} {way.name}"
            began = time.monotonic()
            fit(RunRequest(experiment, way.profile(folder), path), in_process=False)
            seconds = time.monotonic() - began
            records = read_json_lines(RunFolder(path).metrics)
            found.setdefault(precision, {})[way.name] = {
                "losses": [record["loss"] for record in records if "loss" in record],
                "eval_loss": next(record["eval_loss"] for record in records if "eval_loss" in record),
                "seconds": round(seconds, 1),
            }
    return found


class _Clock(TrainerCallback):
    """Takes the time of a step."""

    seconds = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.seconds -= time.monotonic()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds += time.monotonic()


def _one_step(config: dict[str, Any]) -> None:
    """Take one optimizer step on a worker; the main one writes what it was."""
    from ray import train

    context = train.get_context()
    request: RunRequest = config["request"]
    family = load_family(request.experiment)
    corpus = load_corpus(family, notify=print)
    set_seed(request.experiment.experiment.seed)
    began = time.monotonic()
    model = family.load_model(corpus.tokenizer, request.profile)
    parameters = sum(p.numel() for p in model.parameters())
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None,
        profile=request.profile, folder=request.folder(),
        worker=Worker(rank=context.get_world_rank(), num_workers=context.get_world_size()),
    )  # fmt: skip
    clock = _Clock()
    trainer.hf.add_callback(clock)
    trainer.hf.args.save_strategy = "no"
    loss = trainer.hf.train().training_loss
    if context.get_world_rank() == 0:
        write_json(
            request.path / "step.json",
            {
                "parameters": parameters,
                "loss": loss,
                "grad_norm": trainer.hf.state.log_history[0].get("grad_norm"),
                "step_seconds": round(clock.seconds, 1),
                "seconds_with_loading": round(time.monotonic() - began, 1),
            },
        )


class _Memory:
    """The most memory that this process and all below it held together; stops them when little is left."""

    def __init__(self, least_free_gb: float) -> None:
        self.least_free = least_free_gb * 2**30
        self.peak = 0
        self.free = self.free_before = psutil.virtual_memory().available
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        own = psutil.Process()
        while not self.over.wait(0.5):
            held = 0
            below = own.children(recursive=True)
            for process in [own, *below]:
                try:
                    held += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, held)
            self.free = min(self.free, psutil.virtual_memory().available)
            if self.free < self.least_free:
                print(f"stopped: {self.free / 2**30:.1f} GB left on the machine", file=sys.stderr)
                for process in below:
                    if process.is_running():
                        process.kill()
                os._exit(1)


def one_step(preset: str, accumulation: int, least_free_gb: float, folder: Path) -> dict[str, Any]:
    """Take one step of a preset under ZeRO 3 and return its figures."""
    experiment = load_experiment(
        f"red_heart_{preset}",
        [
            "training.max_steps=1", "training.precision=bf16", "training.log_every=1", "training.warmup_ratio=0",
            f"training.gradient_accumulation_steps={accumulation}", "data.max_train_rows=64", "data.max_dev_rows=2",
        ],
    )  # fmt: skip
    profile = load_profile("cpu").model_copy(update={"num_workers": 2, "deepspeed": "zero3"})
    request = RunRequest(experiment, profile, folder)
    memory = _Memory(least_free_gb)
    memory.watcher.start()
    TorchTrainer(
        _one_step,
        train_loop_config={"request": replace(request, path=folder.resolve())},
        scaling_config=scaling(profile, 2),
        torch_config=TorchConfig(backend="gloo"),
    ).fit()
    memory.over.set()
    return {
        "preset": preset,
        "batch_size": experiment.training.batch_size,
        "accumulation": accumulation,
        **json.loads((folder / "step.json").read_text(encoding="utf-8")),
        "peak_memory_gb": round(memory.peak / 2**30, 2),
        "taken_from_machine_gb": round((memory.free_before - memory.free) / 2**30, 2),
    }


def apart(losses: Sequence[float], wanted: Sequence[float]) -> tuple[float, float]:
    """Return the largest and the mean relative difference of the losses of all steps."""
    found = [abs(loss / want - 1) for loss, want in zip(losses, wanted, strict=True)]
    return max(found), sum(found) / len(found)


def shown(found: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """Return the losses as a table: some steps, and how far all lie from plain training in both precisions."""
    table = Table(
        *("precision", "way", "step 1", "step 10", "last step", "eval_loss"),
        *("max, mean from plain", "max, mean from fp32", "seconds"),
    )
    for precision, ways in found.items():
        for name, each in ways.items():
            steps = each["losses"]
            cells = (steps[0], steps[min(9, len(steps) - 1)], steps[-1], each["eval_loss"])
            plain, exact = (
                "{:.1e}, {:.1e}".format(*apart(steps, found[reference][PLAIN.name]["losses"]))
                for reference in (precision, "fp32")
            )
            table.add_row(
                precision, name, *(f"{loss:.6f}" for loss in cells), plain, exact, f"{each['seconds']:.0f}"
            )
    return table


def main() -> None:
    """Measure, and print the table and the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--preset", choices=("730m", "tiny"), help="take one step of it instead")
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--free-gb", type=float, default=3.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr), cluster():
        if given.preset:
            found = one_step(given.preset, given.accumulation, given.free_gb, Path(folder))
        else:
            found = losses(given.steps, Path(folder))
            Console(stderr=True, width=160).print(shown(found))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
