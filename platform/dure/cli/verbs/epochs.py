"""The epochs of modules: the best of each, and a model built of them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result
from dure.config.families import trusting


@verb("sweet-spot", place=70)
def sweet_spot(
    run: options.Run,
    window: Annotated[
        int, typer.Option(min=2, help="Epochs that must be stable and converged.", metavar="N")
    ] = 5,
    max_std: Annotated[
        float, typer.Option(min=0, help="Largest standard deviation of a stable window.", metavar="X")
    ] = 0.01,
    max_gap: Annotated[
        float, typer.Option(min=0, help="Largest validation loss above training loss.", metavar="X")
    ] = 0.1,
    max_change: Annotated[
        float, typer.Option(min=0, help="Largest change over a converged window.", metavar="X")
    ] = 0.01,
    figures: options.Figures = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Say at which epoch each module of a run was at its best."""
    from dure.epochs import driver as module_epochs
    from dure.epochs.sweet_spot import Thresholds
    from dure.epochs.sweet_spot_table import sweet_spot_table
    from dure.reporting.plots import figures_beside

    thresholds = Thresholds(window=window, max_std=max_std, max_gap=max_gap, max_change=max_change)
    with trusting(trust_code), figures_beside(figures):
        record = module_epochs.find_sweet_spots(run, thresholds=thresholds, notify=notify)
    print_result(record, sweet_spot_table(record))


@verb("crossover", place=80)
def crossover(
    run: options.Run,
    search: Annotated[
        Literal["both", "greedy", "optuna", "none"],
        typer.Option(help="How to search the epoch of every module."),
    ] = "both",
    evaluations: Annotated[
        int, typer.Option(min=1, help="Models that each search may score.", metavar="N")
    ] = 100,
    profile: options.ProfileOption = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Build the final model from the best epoch of each module, if that is better on held-out rows."""
    from dure.epochs import driver as module_epochs
    from dure.epochs.crossover_table import crossover_table
    from dure.runtime.placement import choose_profile

    searches: dict[str, tuple[Literal["greedy", "optuna"], ...]] = {
        "both": ("greedy", "optuna"),
        "greedy": ("greedy",),
        "optuna": ("optuna",),
        "none": (),
    }
    with trusting(trust_code):
        record = module_epochs.cross_over(
            run,
            profile=choose_profile(profile, notify),
            searches=searches[search],
            max_evaluations=evaluations,
            notify=notify,
        )
    print_result(record, crossover_table(record))
