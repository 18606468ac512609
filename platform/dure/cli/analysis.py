"""Verbs that look at the epochs of a run: sweet-spot and crossover."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_result, results_only_on_stdout, tell
from dure.config.families import trusting

Run = Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")]


@app.command(name="sweet-spot")
@results_only_on_stdout
def sweet_spot(
    run: Run,
    window: Annotated[int, typer.Option(min=2, help="Epochs that must be stable and converged.")] = 5,
    max_std: Annotated[
        float, typer.Option(min=0, help="Largest standard deviation of a stable window.")
    ] = 0.01,
    max_gap: Annotated[float, typer.Option(min=0, help="Largest validation loss above training loss.")] = 0.1,
    max_change: Annotated[float, typer.Option(min=0, help="Largest change over a converged window.")] = 0.01,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Say at which epoch each module of a run was at its best."""
    from dure.epochs import driver as module_epochs
    from dure.epochs.sweet_spot import Thresholds
    from dure.epochs.sweet_spot_table import sweet_spot_table

    thresholds = Thresholds(window=window, max_std=max_std, max_gap=max_gap, max_change=max_change)
    with trusting(trust_code):
        record = module_epochs.find_sweet_spots(run, thresholds=thresholds, tell=tell)
    print_result(record, sweet_spot_table(record), as_json=as_json)


@app.command()
@results_only_on_stdout
def crossover(
    run: Run,
    search: Annotated[
        Literal["both", "greedy", "optuna", "none"],
        typer.Option(help="How to search the epoch of every module."),
    ] = "both",
    evaluations: Annotated[
        int, typer.Option(min=1, help="Models that each search may score.", metavar="N")
    ] = 100,
    profile: options.ProfileOption = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Build the final model from the best epoch of each module, if that is better on held-out rows."""
    from dure import api
    from dure.epochs import driver as module_epochs
    from dure.epochs.crossover_table import crossover_table

    searches: dict[str, tuple[Literal["greedy", "optuna"], ...]] = {
        "both": ("greedy", "optuna"),
        "greedy": ("greedy",),
        "optuna": ("optuna",),
        "none": (),
    }
    with trusting(trust_code):
        record = module_epochs.cross_over(
            run,
            profile=api.choose_profile(profile, tell),
            searches=searches[search],
            max_evaluations=evaluations,
            tell=tell,
        )
    print_result(record, crossover_table(record), as_json=as_json)
