"""Build a model from the best epoch of each module."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result
from dure.config.families import trusting


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
            profile=api.choose_profile(profile, notify),
            searches=searches[search],
            max_evaluations=evaluations,
            notify=notify,
        )
    print_result(record, crossover_table(record), as_json=as_json)
