"""What a search of the learning rate costs: all in full, progressive halving with warm start, ASHA from scratch.

    python -m tests.benchmarks.search [--seeds 1,2,3] [--full-seeds 1] [--epochs 3] [--epochs-per-stage 3]

Nine log-spaced learning rates (1e-5 to 1e-2) for a small encoder with random weights on 8,000 Korean film reviews,
validated on 4,914 others. Three ways, each through dure, on the same weights and data of a seed:

- ``full``: every learning rate on all rows for ``--epochs`` passes, validated after each
  (``dure sweep --sampler grid --trials 9``);
- ``progressive``: 10 %, 30 % and 100 % of the rows, ``--epochs-per-stage`` passes each; the best third goes on, each
  from its best weights (``dure progressive --candidates learning_rate --num-candidates 9 --eta 3``);
- ``asha``: as ``full``, validated after every tenth of the training, when Tune's ASHA ends trials that are not in the
  best third at 10, 30 and 90 % of it (``--scheduler asha``); nothing of a stopped trial is used again. The order of
  its trials, which matters to it, is drawn by the seed.

Samples are rows times passes, read from what every trial recorded, also those that were stopped or diverged.
``accuracy`` is the best dev accuracy of the way's winner. The same dev rows select, in all three ways, so it is a
little too high in all of them, and most where validation is most frequent (ASHA). ``asha at equal samples`` is the
best accuracy that any of its trials had shown when together they had trained on as many samples as the progressive
way in all. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dure.config import load_profile
from dure.config.loading import load_space
from dure.config.schema import Experiment
from dure.events import StudyListener, TrialStatus
from dure.files import read_json_lines
from dure.studies.life_cycle import run_experiments
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.sweep.plan import plan_sweep
from dure.studies.sweep.results import SweepResults
from tests.benchmarks.small_encoder import experiment, require_data, save_encoder
from tests.benchmarks.table import Row, Spent, hand_over

POINTS = 9
NUM_ROWS = 8000
RATIOS = (Fraction(1, 10), Fraction(3, 10), Fraction(1))
ACCURACY = "eval_accuracy"
RUNGS = 10
"""Validations of a trial under ASHA."""


class Ledger(StudyListener):
    """Notes after every report how many samples all trials have seen, and the best accuracy until then."""

    def __init__(self, rows_per_step: int) -> None:
        self.entries: list[tuple[int, float]] = []
        self._rows_per_step = rows_per_step
        self._steps: dict[str, int] = {}
        self._best = 0.0

    def changed(self, trial: TrialStatus) -> None:
        """Take a report."""
        if trial.state == "running":
            self._steps[trial.name] = trial.step
            self._best = max(self._best, float(trial.metrics.get(ACCURACY, 0.0)))
            self.entries.append((sum(self._steps.values()) * self._rows_per_step, self._best))

    def best_within(self, samples: int) -> float | None:
        """Return the best accuracy until a number of samples was exceeded; None when there was none."""
        within = [best for seen, best in self.entries if seen <= samples and best > 0]
        return within[-1] if within else None


def samples_of(folder: Path, rows_per_step: int) -> int:
    """Return the samples that all runs below a folder trained on, from the last record of each.

    Steps times rows of a step is exact here: 800, 2,400 and 8,000 rows are whole numbers of steps.
    """
    lasts = [records[-1] for file in folder.rglob("metrics.jsonl") if (records := read_json_lines(file))]
    return sum(int(last["step"]) for last in lasts) * rows_per_step


def searched(base: Experiment, path: Path, *, scheduler: Any) -> dict[str, Any]:
    """Try all learning rates on all rows, in an order drawn by the seed: that of ASHA's trials matters."""
    order = load_space("learning_rate").grid(POINTS)
    random.Random(base.experiment.seed).shuffle(order)
    study = plan_sweep(
        base.name,
        sampler="grid",
        num_trials=POINTS,
        scheduler=scheduler,
        tries=[f"training.learning_rate={point['training.learning_rate']!r}" for point in order],
    )
    ledger = Ledger(base.training.effective_batch_size)
    found: SweepResults = run_experiments(
        study, [base], profile=load_profile("cpu"), path=path, follower=ledger
    )
    summary = found.as_json()
    accuracies = {
        f"{summary['values'][entry['name']]['training.learning_rate']:.3g}": (
            entry["metrics"].get(ACCURACY),
            entry["state"],
        )
        for entry in summary["experiments"]
    }
    best = next(entry for entry in summary["experiments"] if entry["name"] == summary["best"])
    return {
        "learning_rate": summary["best_values"]["training.learning_rate"],
        "accuracy": best["metrics"][ACCURACY],
        "seconds": summary["seconds"],
        "points": accuracies,
        "ledger": ledger,
    }


def halved(base: Experiment, path: Path, *, epochs_per_stage: int) -> dict[str, Any]:
    """Let the learning rates race over growing data."""
    study = ProgressiveStudy(
        experiment=base.name,
        ratios=RATIOS,
        candidates=tuple(load_space("learning_rate").grid(POINTS)),
        reduction=3,
        epochs_per_stage=epochs_per_stage,
    )
    found: ProgressiveResults = run_experiments(study, [base], profile=load_profile("cpu"), path=path)
    results = found.as_json()
    chosen = next(each for each in results["candidates"] if each["name"] == results["winner"])
    return {
        "learning_rate": chosen["values"]["training.learning_rate"],
        "accuracy": chosen["stages"][-1]["score"],
        "seconds": results["seconds"],
        "points": {
            f"{each['values']['training.learning_rate']:.3g}": [
                [stage["score"] for stage in each["stages"]],
                each["reason"],
            ]
            for each in results["candidates"]
        },
    }


def measure(seed: int, ways: Sequence[str], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the ways on the weights and the data order of a seed."""
    encoder = save_encoder(folder / "encoder", seed=seed)
    whole = experiment("search", encoder, seed=seed, epochs=options.epochs)
    found: dict[str, Any] = {}
    for way in ways:
        began, path = time.perf_counter(), folder / way
        if way == "progressive":
            found[way] = halved(whole, path, epochs_per_stage=options.epochs_per_stage)
        elif way == "full":
            found[way] = searched(whole, path, scheduler="none")
        else:
            steps = options.epochs * NUM_ROWS // whole.training.effective_batch_size // RUNGS
            often = experiment("search", encoder, seed=seed, epochs=options.epochs, eval_every=steps)
            found[way] = searched(often, path, scheduler="asha")
        found[way]["samples"] = samples_of(path, whole.training.effective_batch_size)
        ledger = found[way].pop("ledger", None)
        if way == "asha" and "progressive" in found:
            found[way]["accuracy_at_equal_samples"] = ledger.best_within(found["progressive"]["samples"])
        print(
            f"seed {seed}, {way}: {found[way]} ({time.perf_counter() - began:.0f} s in all)", file=sys.stderr
        )
    return found


def table_of(runs: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Lay the ways of every seed beside each other."""
    table = Table(title=f"{POINTS} learning rates on film reviews")
    for heading in ("seed", "way", "learning rate", "accuracy %", "samples", "of full %", "seconds"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    whole = next((ways["full"]["samples"] for ways in runs.values() if "full" in ways), None)
    for seed, ways in runs.items():
        for way, values in ways.items():
            table.add_row(
                str(seed),
                way,
                f"{values['learning_rate']:.3g}",
                f"{100 * values['accuracy']:.2f}",
                f"{values['samples']:,}",
                "" if whole is None else f"{100 * values['samples'] / whole:.1f}",
                f"{values['seconds']:.0f}",
            )
            equal = values.get("accuracy_at_equal_samples")
            if equal is not None:
                table.add_row(str(seed), "asha at equal samples", "", f"{100 * equal:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways and print table and JSON."""
    parser = argparse.ArgumentParser(description="Cost of a learning-rate search, three ways")
    parser.add_argument("--seeds", default="1,2,3", help="seeds of progressive and asha")
    parser.add_argument(
        "--full-seeds", default="1", help="seeds of full too, which takes three times as long"
    )
    parser.add_argument("--epochs", type=int, default=3, help="passes of a full training")
    parser.add_argument("--epochs-per-stage", type=int, default=3, help="passes of a progressive stage")
    options = parser.parse_args(arguments)
    require_data()
    seeds, full_seeds = (
        [int(text) for text in given.split(",") if text] for given in (options.seeds, options.full_seeds)
    )
    runs: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as top:
        os.environ["DURE_CACHE"] = f"{top}/cache"
        for seed in dict.fromkeys([*seeds, *full_seeds]):
            ways = [
                *(["progressive", "asha"] if seed in seeds else []),
                *(["full"] if seed in full_seeds else []),
            ]
            runs[seed] = measure(seed, ways, options, Path(top) / str(seed))
    Console(stderr=True).print(table_of(runs))
    settings = {"epochs": options.epochs, "epochs_per_stage": options.epochs_per_stage}
    hand_over("search", rows_of(runs), **settings, seeds=runs)


def rows_of(runs: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> list[Row]:
    """Return the samples of the progressive search beside those of every other way, by seed; 35 percent of all are asked."""
    names, rows = {"asha": ("ASHA", None), "full": ("every rate to its end", 1 / 0.35)}, list[Row]()
    for seed, ways in runs.items():
        samples = {way: [Spent(float(values["samples"]), values["seconds"])] for way, values in ways.items()}
        for way, (peer, asked) in names.items():
            if way in samples and "progressive" in samples:
                found = {"dure": samples["progressive"], peer: samples[way]}
                rows.append(Row(f"search a rate, seed {seed}", found, NUM_ROWS, asked, unit="samples"))
    return rows


if __name__ == "__main__":
    main()
