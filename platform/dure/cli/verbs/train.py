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
    from dure.studies.sweep.driver import experiment_to_train

    asked = common.asked()
    chosen = experiment_to_train(experiment, overrides or (), asked, from_sweep=from_sweep, epochs=epochs)
    return run_experiment(chosen, asked, as_json=common.as_json)
