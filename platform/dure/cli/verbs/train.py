"""Run one experiment."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb


@verb("train", place=10, background=True)
def train(
    experiment: options.ExperimentName,
    overrides: options.Overrides = None,
    from_sweep: options.FromSweep = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; training.epochs.", metavar="N")
    ] = None,
    *,
    common: options.Training,
) -> int:
    """Run one experiment."""
    from dure.cli.running import run_experiment
    from dure.config.loading import load_experiment
    from dure.studies.sweep.driver import check_for, winner_overrides

    best = [] if from_sweep is None else winner_overrides(from_sweep)
    chosen = load_experiment(experiment, [*best, *(overrides or ())])
    if epochs is not None:
        chosen = chosen.with_({"training.epochs": epochs}, "--epochs")
    asked = common.asked()
    if from_sweep is not None:
        check_for(from_sweep, asked.shape(chosen), notify=asked.notify)
    return run_experiment(chosen, asked, as_json=common.as_json)
