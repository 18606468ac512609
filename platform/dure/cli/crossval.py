"""The verb that judges honestly: crossval."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_result, print_yaml, results_only_on_stdout, tell
from dure.errors import UserError
from dure.runs.folder import STUDY_FILE


@app.command()
@results_only_on_stdout
def crossval(
    words: Annotated[
        list[str],
        typer.Argument(
            help="Experiments by name or YAML file, and settings laid over all of them.",
            metavar="EXPERIMENT… [KEY=VALUE…]",
            autocompletion=options.experiment_names,
        ),
    ],
    folds: Annotated[
        int | None, typer.Option(help="Parts that the training table is cut into (5).", metavar="N")
    ] = None,
    drop_worse: Annotated[
        bool,
        typer.Option("--drop-worse", help="Train an experiment no further once it is clearly worse."),
    ] = False,
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
    """Cross-validate experiments on the same stratified folds and compare them."""
    from dure import api
    from dure.jobs.background_folders import claim
    from dure.reporting.console import StudyConsole, terminal
    from dure.studies.crossval import driver as validation
    from dure.studies.crossval.report import crossval_table

    names = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if not names:
        raise UserError("no experiment is named", where="dure crossval", hint="dure list shows their names")
    experiments = [
        api.shaped(
            api.load_experiment(name, overrides), rehearse=rehearse, one_epoch=one_epoch, samples=samples
        )
        for name in names
    ]
    study = validation.plan_crossval(experiments, folds=folds, drop_worse=drop_worse)
    machine = None if dry_run else api.choose_profile(profile, tell, address=address)
    path = (
        api.output_folder(study.name, output, resume=True, record=STUDY_FILE, profile=machine)
        if resume
        else None
    )
    if path is not None:
        study = validation.plan_crossval(experiments, folds=folds, drop_worse=drop_worse, stored=path)
    api.check([validation.first_fold(study, each) for each in experiments], with_tables=not dry_run)
    if machine is None:
        print_yaml(study, *experiments, as_json=as_json)
        return 0
    api.check_rows([validation.first_fold(study, each) for each in experiments])
    path = path or api.output_folder(study.name, output, resume=False, profile=machine)
    claim(path)
    with terminal() as screen:
        results = validation.crossval(
            study,
            experiments,
            profile=machine,
            path=path,
            resume=resume,
            address=address,
            follower=StudyConsole(screen, metrics=[experiments[0].training.best_metric]),
        )
    print_result(results, crossval_table(results), as_json=as_json)
    return 0 if results["state"] == "completed" else 1
