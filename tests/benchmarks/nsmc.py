"""Progressive training on real data: the curve over the ratios, and the forecast made at 30 % beside the truth.

    python -m tests.benchmarks.nsmc [--seed 1] [--epochs-per-stage 1] [--learning-rate 1e-3]

A BERT of two layers, 128 wide, with random weights (of ``--seed``, as all else) and KcBERT's vocabulary learns from
8,000 Korean film reviews in ten stages, through ``dure progressive``, and is validated on 4,914 others. The dev rows
choose the best epoch of every stage too (with more than one), and the settings were chosen by them, so that the
accuracies are a little too high. One epoch a stage, because the first rows are in all ten stages: with three, the
training loss falls to 0.05 and the accuracy ends lower. Character n-grams with logistic regression reach 83.1 % on all
8,000 rows: this shows that learning in stages works, not that it is the way to classify film reviews. The table goes to
stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dure.config import load_profile
from dure.reporting.console import StudyConsole
from dure.reporting.terminal import Terminal
from dure.studies.life_cycle import run_experiments
from dure.studies.progressive.plan import ProgressiveStudy
from tests.benchmarks.small_encoder import experiment, require_data, save_encoder
from tests.benchmarks.table import Row, Spent, hand_over

FORECAST_AT = Fraction(3, 10)


def table_of(stages: Sequence[Mapping[str, Any]], ahead: Mapping[str, Any]) -> Table:
    """Return the curve and the forecast."""
    table = Table(title="Progressive training on film reviews")
    for heading in ("data %", "rows", "dev accuracy %", "best epoch", "seconds"):
        table.add_column(heading, justify="right")
    for stage in stages:
        table.add_row(
            f"{100 * stage['ratio']:.0f}",
            f"{stage['num_rows']:,}",
            f"{100 * stage['score']:.2f}",
            str(stage["best_epoch"]),
            f"{stage['seconds']:.0f}",
        )
    table.caption = (
        f"forecast at {100 * float(FORECAST_AT):.0f} % for all rows: {100 * ahead['value']:.2f}, with "
        f"{ahead['level']:.0%} from {100 * ahead['low']:.2f} to {100 * ahead['high']:.2f}; "
        f"measured {100 * stages[-1]['score']:.2f}"
    )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train in stages and print table and JSON."""
    parser = argparse.ArgumentParser(description="Progressive training on real data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs-per-stage", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args(arguments)
    require_data()
    with tempfile.TemporaryDirectory() as top:
        os.environ["DURE_CACHE"] = f"{top}/cache"
        encoder = save_encoder(Path(top) / "encoder", seed=options.seed)
        base = experiment("nsmc", encoder, seed=options.seed, learning_rate=options.learning_rate)
        began = time.perf_counter()
        # Twenty-five steps from random weights are not enough to beat the trivial baseline, hence "warn".
        study = ProgressiveStudy(
            experiment=base.name, epochs_per_stage=options.epochs_per_stage, on_baseline="warn"
        )
        with Terminal() as screen:
            record = run_experiments(
                study,
                [base],
                profile=load_profile("cpu"),
                path=Path(top) / "nsmc",
                follower=StudyConsole(screen, metrics=[base.training.best_metric]),
            )
        seconds = time.perf_counter() - began
    results = record.as_json()
    if results["state"] != "completed":
        raise SystemExit(f"it did not complete: {results['candidates'][0]['reason']}")
    stages = results["stages"]
    ahead = next(stage["forecast"] for stage in stages if Fraction(str(stage["ratio"])) == FORECAST_AT)
    Console(stderr=True).print(table_of(stages, ahead))
    error = Spent(100 * (1 - stages[-1]["score"]), seconds)
    row = Row("learn film reviews in stages", {"dure": [error]}, stages[-1]["num_rows"], 22.0, unit="error %")
    curve = {f"{stage['ratio']:g}": stage["score"] for stage in stages}
    samples = results["samples_trained"]
    hand_over("nsmc", [row], seed=options.seed, curve=curve, forecast=ahead, samples_trained=samples)


if __name__ == "__main__":
    main()
