"""How time and memory grow with the size of a study or a table.

Usage, with OMP_NUM_THREADS=1:
    python -m tests.benchmarks.load sweep [--trials 1000]     a sweep of a trainable that does nothing
    python -m tests.benchmarks.load tune [--trials 1000]      the same without dure: what grows here is Ray's
    python -m tests.benchmarks.load board [--trials 10000]    what the driver does for a trial, without Ray: search, board, summary
    python -m tests.benchmarks.load batch [--trials 50]       experiments that train a tiny model
    python -m tests.benchmarks.load rows [--rows 200000]      a table read, encoded and trained on for a few steps

Trials and memory are told of the first and the last tenth. Memory is what is the driver's alone (anonymous pages).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

from ray import tune

from dure.config import load_profile
from dure.events import StudyListener, TrialStatus
from dure.runs.folder import RunFolder, RunResult
from dure.runs.logs import captured_output
from dure.runtime.cluster import cluster
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.studies.board import Board
from dure.studies.sweep.plan import plan_sweep
from dure.studies.sweep.strategy import Sweep
from dure.training.run import RunRequest
from tests.benchmarks.large_table import measured, write_table
from tests.benchmarks.trial_overhead import experiment


def own_mb() -> float:
    """Return the MB that are this process's alone."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Growth(StudyListener, tune.Callback):
    """Notes time and memory whenever a trial ends, in a study of dure's or in plain Tune."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]
        self.memory = [own_mb()]

    def ended(self) -> None:
        """A trial has ended."""
        self.times.append(time.perf_counter())
        self.memory.append(own_mb())

    def changed(self, trial: TrialStatus) -> None:
        """Hear of dure's."""
        if trial.state == "completed":
            self.ended()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hear of Tune's."""
        self.ended()

    def record(self) -> dict[str, float]:
        """Return seconds a trial and MB in the first and the last tenth."""
        spent = [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]
        tenth = max(1, len(spent) // 10)
        return {
            "trials": len(spent),
            # The first trial waits for its process.
            "first_s": mean(spent[1 : tenth + 1]),
            "last_s": mean(spent[-tenth:]),
            "first_mb": mean(self.memory[1 : tenth + 1]),
            "last_mb": mean(self.memory[-tenth:]),
        }


def do_nothing(request: RunRequest, callbacks: Sequence[Any] = ()) -> RunResult:
    """Stand for training: leave a result that depends on the rate."""
    loss = abs(request.experiment.training.learning_rate - 1e-3)
    result = RunResult(
        request.experiment.name, "completed", metrics={"eval_loss": loss, "steps": 1}, seconds=0.1
    )
    request.folder().write_result(result)
    return result


def sweep_of(num_trials: int, folder: Path) -> Sweep:
    """Return a random search of the learning rate."""
    base = experiment("load")
    study = plan_sweep("load", sampler="random", num_trials=num_trials, metrics=["eval_loss"])
    return Sweep(study.named([base]).resolved([base]), base, folder)


def real_sweep(num_trials: int, folder: Path) -> dict[str, dict[str, float]]:
    """Run trials that do nothing through dure."""
    growth = Growth()
    profile = load_profile("cpu").model_copy(update={"max_concurrent_trials": 1})
    (folder / "dure").mkdir()
    record = run_study(
        sweep_of(num_trials, folder / "dure"),
        profile=profile,
        path=folder / "dure",
        follower=growth,
        train=do_nothing,
    )
    if record.state != "completed":
        raise SystemExit(f"a trial failed: {record.state}")
    return {"dure": growth.record()}


def plain_tune(num_trials: int, folder: Path) -> dict[str, dict[str, float]]:
    """Run as many trials of a function that reports one number, with Tune's own random search."""
    growth = Growth()
    with captured_output(folder / "tune.log"), cluster():
        tune.Tuner(
            _report,
            param_space={"rate": tune.loguniform(1e-5, 1e-2)},
            tune_config=tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=[growth], verbose=0),
        ).fit()
    return {"plain Tune": growth.record()}


def _report(config: Mapping[str, float]) -> None:
    tune.report({"loss": abs(config["rate"] - 1e-3)})


def board(num_trials: int, folder: Path) -> dict[str, dict[str, float]]:
    """Propose, start and end trials as Tune's driver does, without processes."""
    growth = Growth()
    strategy = sweep_of(num_trials, folder)
    seen = Board(strategy, load_profile("cpu"), folder, StudyListener())
    with seen.followed(), seen.summarised():
        for number in range(num_trials):
            trial_id = str(number)
            config = strategy.search.suggest(trial_id)
            if not isinstance(config, dict):
                raise SystemExit(f"no point was proposed for trial {number}: {config}")
            trial = SimpleNamespace(config=config, last_result={})
            seen.on_trial_start(number, [], trial)
            loss = abs(config["trained"]["training.learning_rate"] - 1e-3)
            result = RunResult(
                config["trial"], "completed", metrics={"eval_loss": loss, "steps": 1}, seconds=0.1
            )
            path = folder / config["trial"]
            path.mkdir(exist_ok=True)
            RunFolder(path).write_result(result)
            strategy.search.on_trial_complete(trial_id, {})
            seen.on_trial_complete(number, [], trial)
            if seen.failure is not None:
                raise seen.failure
            growth.ended()
    if seen.results().state != "completed":
        raise SystemExit("not every trial is completed")
    return {"dure's driver": growth.record()}


def batch(num_trials: int, folder: Path) -> dict[str, dict[str, float]]:
    """Train a tiny model in every trial of a batch."""
    growth = Growth()
    names = [f"load_{number:03d}" for number in range(num_trials)]
    profile = load_profile("cpu").model_copy(update={"max_concurrent_trials": 1})
    study = BatchStudy(kind="batch", name="load", experiments=tuple(names))
    record = run_study(
        Batch(study, [experiment(name) for name in names]),
        profile=profile,
        path=folder / "batch",
        follower=growth,
    )
    if record.state != "completed":
        raise SystemExit(f"a trial failed: {record.state}")
    return {"dure": growth.record()}


def rows(num_rows: int, folder: Path) -> dict[str, dict[str, float]]:
    """Train a few steps on a table, and on a tenth of it, each in a process of its own; validates on 200 rows."""
    write_table(folder / "dev.csv", 200, labels=True)
    words = ["transfer_bert", "--rehearse", "--profile", "cpu", "data.dev=dev.csv", "data.on_overlap=warn"]
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "max_steps": 20, "num_evaluations": 1}
    words += [f"rehearsal.{name}={value}" for name, value in sizes.items()]
    found = {}
    for number in (num_rows // 10, num_rows):
        write_table(folder / f"{number}.csv", number, labels=True)
        table = [f"data.train={number}.csv", f"rehearsal.max_train_rows={number}"]
        took = measured(["train", *words, *table, "-o", f"run_{number}"], folder)
        found[f"{number:,} rows"] = {
            "seconds": took.seconds,
            "cpu_s": took.cpu_seconds,
            "peak_mb": took.peak_mb,
        }
    return found


WAYS: dict[str, tuple[Callable[[int, Path], dict[str, dict[str, float]]], int]] = {
    "sweep": (real_sweep, 1000), "tune": (plain_tune, 1000), "board": (board, 10_000), "batch": (batch, 50), "rows": (rows, 200_000),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one way and print it as JSON."""
    parser = argparse.ArgumentParser(
        description="How time and memory grow with the size of a study or a table"
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--trials", "--rows", type=int, dest="number")
    options = parser.parse_args(arguments)
    measure, number = WAYS[options.way]
    with tempfile.TemporaryDirectory() as top:
        os.environ["DURE_CACHE"] = f"{top}/cache"
        found = measure(options.number or number, Path(top))
    print(
        json.dumps(
            {"benchmark": "load", "way": options.way, "load": os.getloadavg()[0], "found": found}, indent=2
        )
    )


if __name__ == "__main__":
    main()
