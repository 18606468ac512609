"""Verbs that run something: train and batch."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_json, print_result, print_yaml, results_only_on_stdout, tell
from dure.errors import RunError
from dure.runs.folder import STUDY_FILE


@app.command()
@results_only_on_stdout
def train(
    experiment: Annotated[
        str,
        typer.Argument(
            help="Experiment by name (see `dure list`) or YAML file.",
            metavar="EXPERIMENT",
            autocompletion=options.experiment_names,
        ),
    ],
    overrides: options.Overrides = None,
    from_sweep: options.FromSweep = None,
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
    """Run one experiment."""
    from dure import api
    from dure.jobs.background_folders import claim
    from dure.reporting.console import RunConsole, terminal
    from dure.reporting.summary import result_report
    from dure.runs.folder import RunFolder
    from dure.studies.sweep.driver import winner_overrides

    best = [] if from_sweep is None else winner_overrides(from_sweep)
    chosen = api.shaped(
        api.load_experiment(experiment, [*best, *(overrides or ())]),
        rehearse=rehearse,
        one_epoch=one_epoch,
        samples=samples,
    )
    api.check([chosen], with_tables=not dry_run)
    if dry_run:
        print_yaml(chosen, as_json=as_json)
        return 0
    machine = api.choose_profile(profile, tell, address=address)
    path = api.output_folder(chosen.name, output, resume=resume, profile=machine)
    claim(path)
    try:
        with terminal() as screen:
            followers = [RunConsole(screen)]
            result = api.train(
                chosen, profile=machine, path=path, resume=resume, address=address, followers=followers
            )
    except RunError:
        failed = RunFolder(path).read_result()
        if as_json and failed is not None:
            print_json({**failed.as_dict(), "path": str(path)})
        raise
    values = {**result.as_dict(), "path": str(path)}
    print_result(values, result_report(values), as_json=as_json)
    return 0 if result.state == "completed" else 1


@app.command()
@results_only_on_stdout
def batch(
    study: Annotated[
        str,
        typer.Argument(
            help="Study by name (see `dure list`) or YAML file.",
            metavar="STUDY",
            autocompletion=options.study_names,
        ),
    ],
    overrides: options.Overrides = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Only these experiments, by number or name: 1,4.", metavar="LIST"),
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
    """Run the experiments of a study side by side and compare them."""
    from dure import api
    from dure.jobs.background_folders import claim
    from dure.reporting.console import StudyConsole, terminal
    from dure.reporting.summary import summary_table
    from dure.studies.batch import column_metrics

    plan = api.load_study(study)
    experiments = [
        api.shaped(each, rehearse=rehearse, one_epoch=one_epoch, samples=samples)
        for each in api.study_experiments(plan, overrides or (), only)
    ]
    api.check(experiments, with_tables=not dry_run)
    column_metrics(plan, experiments)
    if dry_run:
        print_yaml(*experiments, as_json=as_json)
        return 0
    api.check_some_rows(experiments)
    machine = api.choose_profile(profile, tell, address=address)
    path = api.output_folder(plan.name, output, resume=resume, record=STUDY_FILE, profile=machine)
    claim(path)
    with terminal() as screen:
        summary = api.batch(
            plan,
            experiments,
            profile=machine,
            path=path,
            resume=resume,
            address=address,
            follower=StudyConsole(screen, metrics=plan.metrics),
        )
    print_result(summary, summary_table(summary), as_json=as_json)
    return 0 if summary["state"] == "completed" else 1
