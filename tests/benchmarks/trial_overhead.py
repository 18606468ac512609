"""What a trial costs: dure against TorchTrainers nested in Tune as Ray documents it.

    python -m tests.benchmarks.trial_overhead [--trials 12]

Both sides train the same tiny model (a rehearsal T5 of one layer, 4 steps, one validation) with the very same
function, ``dure.training.run.run``, in 12 Tune trials, one at a time, each side in a Ray cluster of its own.
dure runs them through its study adapter: in the trial's process, which goes on to the next trial. The other
side is the documented nesting: a Tune function that calls ``TorchTrainer(...).fit()`` with one worker and
``TuneReportCallback``. Reported is the time from the first trial's start to the last one's end, over the number
of trials; starting the cluster is not counted, starting trial processes is. The share that is training itself
is measured apart, in this process, and shown as ``work``.
The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console
from rich.table import Table

from dure.config import load_profile, rehearsal_of
from dure.config.schema import Experiment
from dure.events import StudyListener, TrialStatus
from dure.runs.logs import captured_output
from dure.runtime.cluster import cluster
from dure.runtime.fit import TrainReporter
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.training.run import RunRequest, run


def experiment(name: str) -> Experiment:
    """Make the tiny experiment of one trial."""
    return rehearsal_of(
        Experiment.model_validate(
            {
                "family": "trainables.summarization",
                "experiment": {"name": name},
                "model": {"checkpoint": "none", "architecture": "t5"},
                "tokenizer": {"encoder_max_len": 32, "decoder_max_len": 12},
                "training": {"batch_size": 4},
                "generation": {"max_length": 6},
                "lora": {"rank": 4, "alpha": 8, "targets": ["q", "v"]},
                "rehearsal": {
                    "hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 300, "max_steps": 4,
                    "num_evaluations": 1, "max_train_rows": 16, "max_dev_rows": 4,
                },
                "task": {"rouge_tokenizer": "character"},
            }
        )
    )  # fmt: skip


class _Clock(StudyListener):
    """Notes when the first trial starts and the last one ends."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last = 0.0

    def changed(self, trial: TrialStatus) -> None:
        self.first = self.first or time.perf_counter()
        self.last = time.perf_counter()
        print(f"{trial.name}: {trial.state} after {self.last - self.first:.1f} s", file=sys.stderr)


class _NestedClock(tune.Callback):
    """The same, for the documented way."""

    def __init__(self, clock: _Clock) -> None:
        self.clock = clock

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.clock.changed(TrialStatus(trial.config["trial"], "running", Path()))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.clock.changed(TrialStatus(trial.config["trial"], "completed", Path()))


def ours(names: Sequence[str], folder: Path) -> float:
    """Run the trials through dure and return seconds a trial."""
    clock = _Clock()
    profile = load_profile("cpu").model_copy(update={"max_concurrent_trials": 1})
    study = BatchStudy(kind="batch", name="overhead", experiments=tuple(names))
    summary = run_study(
        Batch(study, [experiment(name) for name in names]), profile=profile, path=folder, follower=clock
    )
    if summary.state != "completed":
        raise SystemExit(f"a trial failed: {summary}")
    return (clock.last - (clock.first or 0.0)) / len(names)


def _worker(config: Mapping[str, Any]) -> None:
    request: RunRequest = config["request"]
    run(replace(request, listeners=(TrainReporter(request.experiment.training.effective_batch_size),)))


def _nested_trial(config: Mapping[str, Any], requests: Mapping[str, RunRequest]) -> None:
    request = requests[config["trial"]]
    TorchTrainer(
        _worker,
        train_loop_config={"request": request},
        scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=train.RunConfig(storage_path=str(request.path / "ray"), callbacks=[TuneReportCallback()]),
    ).fit()


def nested(names: Sequence[str], folder: Path) -> float:
    """Run the trials as Ray documents nesting and return seconds a trial."""
    clock = _Clock()
    profile = load_profile("cpu")
    requests = {name: RunRequest(experiment(name), profile, folder / name) for name in names}
    with captured_output(folder / "nested.log"), cluster():
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(_nested_trial, requests=requests), {"CPU": 0.01}),
            param_space={"trial": tune.grid_search(list(names))},
            tune_config=tune.TuneConfig(max_concurrent_trials=1),
            run_config=tune.RunConfig(
                storage_path=str(folder / "tune"), callbacks=[_NestedClock(clock)], verbose=0
            ),
        ).fit()
    if results.errors:
        raise SystemExit(f"a trial failed: {results.errors[0]}")
    return (clock.last - (clock.first or 0.0)) / len(names)


def work(folder: Path) -> float:
    """Return the seconds that one run takes by itself, in a process where everything is imported."""
    run(RunRequest(experiment("warm"), load_profile("cpu"), folder / "warm"))
    start = time.perf_counter()
    run(RunRequest(experiment("timed"), load_profile("cpu"), folder / "timed"))
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both sides in one run and print table and JSON."""
    parser = argparse.ArgumentParser(description="Trial overhead of dure and of nested TorchTrainers")
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args(arguments)
    names = [f"trial_{number:02d}" for number in range(options.trials)]
    with tempfile.TemporaryDirectory() as top:
        os.environ["DURE_CACHE"] = f"{top}/cache"
        alone = work(Path(top))
        dure = ours(names, Path(top) / "dure")
        documented = nested(names, Path(top) / "nested")
    table = Table(title=f"Seconds a trial, {options.trials} trials, one at a time")
    for heading in ("way", "s/trial", "of it work", "× dure"):
        table.add_column(heading)
    table.add_row("dure", f"{dure:.2f}", f"{alone:.2f}", "1.0")
    table.add_row("nested, as documented", f"{documented:.2f}", f"{alone:.2f}", f"{documented / dure:.1f}")
    Console(stderr=True).print(table)
    values = {"dure_seconds": dure, "nested_seconds": documented, "work_seconds": alone}
    print(
        json.dumps(
            {"benchmark": "trial_overhead", "trials": options.trials, **values, "ratio": documented / dure}
        )
    )


if __name__ == "__main__":
    main()
