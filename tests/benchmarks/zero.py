"""DeepSpeed ZeRO on two CPU workers: the same losses as plain training, and a step of Red Heart with 730M parameters.

    python -m tests.benchmarks.zero [--steps 20]
    python -m tests.benchmarks.zero --preset 730m [--accumulation 2] [--free-gb 3]

The first trains red_heart_tiny on Ray Train's workers plainly and under ZeRO 0 to 3, in fp32 and in bf16, with the same
rows and dropout, and prints the loss of every step. The second takes one optimizer step of red_heart_730m under ZeRO 3 in
bf16, with fewer accumulated passes than the experiment's 32, and saves nothing. Its memory is that of this process and all
below it, Ray's among them, looked at every half second; it ends when the machine has less than ``--free-gb`` left. The
table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from dataclasses import replace
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
from dure.files import read_json_lines, write_json
from dure.runtime.cluster import cluster
from dure.runtime.fit import fit, scaling
from dure.training.corpus import load_corpus
from dure.training.records import RunFolder
from dure.training.run import RunRequest
from dure.training.trainer import ModelTrainer

WAYS = ("plain", 0, 1, 2, 3)


def profile_of(way: str | int, folder: Path) -> Profile:
    """Return two workers on a CPU, with a ZeRO stage if ``way`` is one."""
    profile = load_profile("cpu").model_copy(update={"num_workers": 2})
    if way == "plain":
        return profile
    path = folder / f"zero{way}.json"
    write_json(path, {"zero_optimization": {"stage": way, "stage3_param_persistence_threshold": 1000}})
    return profile.model_copy(update={"deepspeed": str(path)})


def losses(steps: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Train in every way; return the losses of all steps and the seconds, by precision and way."""
    found = {}
    for precision in ("fp32", "bf16"):
        experiment = load_experiment(
            "red_heart_tiny",
            [
                f"training.max_steps={steps}", f"training.eval_every={steps}", "training.log_every=1",
                f"training.precision={precision}", "data.max_train_rows=200", "data.max_dev_rows=8",
            ],
        )  # fmt: skip
        for way in WAYS:
            path = folder / f"{precision}_{way}"
            began = time.monotonic()
            fit(RunRequest(experiment, profile_of(way, folder), path))
            seconds = time.monotonic() - began
            records = read_json_lines(RunFolder(path).metrics)
            found[f"{precision} {way}"] = {
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
    corpus = load_corpus(family, tell=print)
    set_seed(request.experiment.experiment.seed)
    began = time.monotonic()
    model = family.load_model(corpus.tokenizer, request.profile)
    parameters = sum(p.numel() for p in model.parameters())
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None,
        profile=request.profile, folder=request.folder(),
        num_workers=context.get_world_size(), rank=context.get_world_rank(),
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
        scaling_config=scaling(profile, in_process=False),
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


def shown(found: dict[str, dict[str, Any]]) -> Table:
    """Return the losses as a table: some steps, and the farthest from plain training at any step."""
    table = Table(
        "way", "step 1", "step 5", "step 10", "last step", "eval_loss", "farthest from plain", "seconds"
    )
    for name, each in found.items():
        plain = found[f"{name.split()[0]} plain"]["losses"]
        steps = each["losses"]
        apart = max(abs(loss / want - 1) for loss, want in zip(steps, plain, strict=True))
        cells = [steps[min(place, len(steps) - 1)] for place in (0, 4, 9)]
        table.add_row(
            name, *(f"{loss:.6f}" for loss in (*cells, steps[-1])),
            f"{each['eval_loss']:.6f}", f"{apart:.1e}", f"{each['seconds']:.0f}",
        )  # fmt: skip
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
