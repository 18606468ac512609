"""The verb that searches: sweep."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_result, print_yaml, results_only_on_stdout, tell
from dure.config.schema import Experiment
from dure.runs.folder import STUDY_FILE
from dure.studies.sweep.plan import SamplerName, StopperName


@app.command()
@results_only_on_stdout
def sweep(
    experiment: Annotated[
        str,
        typer.Argument(
            help="Experiment by name (see `dure list`) or YAML file.",
            metavar="EXPERIMENT",
            autocompletion=options.experiment_names,
        ),
    ],
    overrides: options.Overrides = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Search space by name or file; learning_rate (1e-5 to 1e-2) when not given.",
            metavar="NAME",
            autocompletion=options.space_names,
        ),
    ] = None,
    sampler: Annotated[
        SamplerName | None, typer.Option(help="Who proposes the points; tpe when not given.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Points in all (20); of a grid, evenly spaced points along every range (5).", metavar="N"
        ),
    ] = None,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", help="Point to try first: 1e-4, or KEY=VALUE,KEY=VALUE.", metavar="POINT"),
    ] = None,
    scheduler: Annotated[
        StopperName | None,
        typer.Option(help="Who stops bad trials, by the samples that they saw; none when not given."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="What to look for on the validation rows; training.best_metric when not given. With several, the "
            "best compromises. NAME:min or NAME:max for a figure whose direction is not declared.",
            metavar="NAME",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database that keeps the search, as Optuna takes it; a file of the study when not given.",
            metavar="URL",
        ),
    ] = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    output: options.Output = None,
    resume: options.Resume = False,
    rehearse: options.Rehearse = False,
    one_epoch: options.OneEpoch = False,
    samples: options.Samples = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Search the learning rate, or any other settings, with which an experiment does best."""
    from dure import api
    from dure.jobs.background_folders import claim
    from dure.reporting.console import StudyConsole, terminal
    from dure.studies.sweep import driver as sweeping
    from dure.studies.sweep.report import sweep_table

    def shape(chosen: Experiment) -> Experiment:
        return api.shaped(chosen, rehearse=rehearse, one_epoch=one_epoch, samples=samples)

    base = api.load_experiment(experiment, overrides or ())
    name = f"{base.name[:90]}-sweep"
    machine = None if dry_run else api.choose_profile(profile, tell, address=address)
    path = (
        api.output_folder(name, output, resume=True, record=STUDY_FILE, profile=machine) if resume else None
    )
    study = sweeping.plan_sweep(
        base,
        space=space,
        sampler=sampler,
        scheduler=scheduler,
        num_trials=trials,
        tries=tries or (),
        metrics=metric or (),
        storage=storage,
        stored=path,
    )
    api.check(sweeping.judged_ways(study, shape(base)), with_tables=not dry_run)
    if machine is None:
        print_yaml(study, shape(base), as_json=as_json)
        return 0
    api.check_rows([shape(base)])
    path = path or api.output_folder(name, output, resume=False, profile=machine)
    claim(path)
    with terminal() as screen:
        summary = sweeping.sweep(
            study,
            base,
            profile=machine,
            path=path,
            shape=shape,
            resume=resume,
            address=address,
            follower=StudyConsole(screen, metrics=[each.name for each in study.metrics]),
        )
    print_result(summary, sweep_table(summary), as_json=as_json)
    return 0 if summary["state"] == "completed" else 1
