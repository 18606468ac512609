"""Cut a training and look whether it shows."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result


@verb("verify-resume", place=140)
def verify_resume(
    experiment: options.ExperimentName,
    overrides: options.Overrides = None,
    kills: Annotated[
        int, typer.Option(min=0, help="Times that it is killed, beside one SIGTERM.", metavar="N")
    ] = 3,
    steps: Annotated[
        int, typer.Option(min=2, help="Optimiser steps of the training that is checked.", metavar="N")
    ] = 20,
    seed: Annotated[int, typer.Option(help="Draws the steps at which it is cut.", metavar="N")] = 0,
    profile: options.ProfileOption = None,
    output: options.Output = None,
    rehearse: options.Rehearse = False,
    as_json: options.Json = False,
) -> int:
    """Train a few steps undisturbed, again with kills and resumptions, and compare every number."""
    from dure import api
    from dure.preflight.before import check_settings
    from dure.resume_check import verify_resume as verify
    from dure.resume_check.checking import shortened
    from dure.resume_check.report import resume_table

    chosen = shortened(
        api.with_options(api.load_experiment(experiment, overrides or ()), rehearse=rehearse), steps
    )
    check_settings([chosen])
    machine = api.choose_profile(profile, notify)
    path = api.output_folder(f"{chosen.name}-verify-resume", output, resume=False)
    record = verify(chosen, profile=machine, path=path.resolve(), num_kills=kills, seed=seed, notify=notify)
    print_result(record, resume_table(record), as_json=as_json)
    return 0 if record["passed"] else 1
