"""Search settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.studies.choices import SamplerName, StopperName


@dataclass(frozen=True)
class Search:
    """Options that say what is searched, by whom, and for what."""

    space: Annotated[
        str | None,
        typer.Option(
            help="Search space by name or file; learning_rate (1e-5 to 1e-2) when not given.",
            metavar="NAME",
            autocompletion=options.named("space"),
        ),
    ] = None
    sampler: Annotated[
        SamplerName | None, typer.Option(help="Who proposes the points; tpe when not given.")
    ] = None
    num_trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            help="Points in all (20); of a grid, evenly spaced points along every range (5).",
            metavar="N",
        ),
    ] = None
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", help="Point to try first: 1e-4, or KEY=VALUE,KEY=VALUE.", metavar="POINT"),
    ] = None
    scheduler: Annotated[
        StopperName | None,
        typer.Option(help="Who stops bad trials, by the samples that they saw; none when not given."),
    ] = None
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="What to look for on the validation rows; training.best_metric when not given. With several, the "
            "best compromises. NAME:min or NAME:max for a figure whose direction is not declared.",
            metavar="NAME",
        ),
    ] = None
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database that keeps the search, as Optuna takes it; a file of the study when not given.",
            metavar="URL",
        ),
    ] = None


@verb("sweep", place=40, background=True)
def sweep(
    experiment: options.ExperimentName,
    overrides: options.Overrides = None,
    *,
    search: Search,
    common: options.Training,
) -> int:
    """Search the learning rate, or any other settings, with which an experiment does best."""
    from dure.cli.running import run_study
    from dure.studies.life_cycle import stored_for
    from dure.studies.sweep.plan import plan_sweep

    asked = common.asked()
    study = plan_sweep(
        experiment,
        overrides=overrides or (),
        **asdict(search),
        before=stored_for(plan_sweep(experiment, overrides=overrides or ()), asked),
    )
    return run_study(study, asked)
