"""Looks before anything runs: what is wrong, what it will take, and whether a resumption shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result

_WRONG_CODE = 2


@verb("validate", place=130)
def validate(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="Experiment by name (see `dure list`) or YAML file; that of the run of --checkpoint, "
            "or only the environment, when not given.",
            metavar="[EXPERIMENT]",
            autocompletion=options.named("experiment"),
        ),
    ] = None,
    overrides: options.Overrides = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run, checkpoint-<step>, final_model, or a file of weights.", metavar="PATH"
        ),
    ] = None,
    profile: options.ProfileOption = None,
    output: options.Output = None,
    rehearse: options.Rehearse = False,
    trust_code: options.TrustCode = False,
) -> int:
    """Check environment, configuration, data and checkpoints, without training."""
    from dure import api
    from dure.preflight.report import validation_table

    record = api.validate(
        experiment,
        overrides or (),
        profile=profile,
        checkpoint=checkpoint,
        output=output,
        rehearse=rehearse,
        trust_code=trust_code,
        notify=notify,
    )
    print_result(record, validation_table(record))
    return _WRONG_CODE if record["num_failed"] else 0


@verb("forecast", place=125)
def forecast(
    what: Annotated[
        str,
        typer.Argument(
            help="Experiment or study: by name (see `dure list`) or YAML file.",
            metavar="EXPERIMENT",
            autocompletion=options.named("experiment", "study"),
        ),
    ],
    overrides: options.Overrides = None,
    profile: options.ProfileOption = None,
    rehearse: options.Rehearse = False,
    samples: options.Samples = None,
    measure: Annotated[
        int | None,
        typer.Option(min=2, help="Train so many real steps first, which calibrate the time.", metavar="N"),
    ] = None,
) -> None:
    """Forecast memory, time, disk and money of an experiment or a study, and what would fit."""
    from transformers.utils import logging

    from dure import api
    from dure.reporting.forecasts import forecast_text

    logging.set_verbosity_error()
    record = api.forecast(
        what,
        overrides or (),
        profile=profile,
        rehearse=rehearse,
        samples=samples,
        measure=measure,
        notify=notify,
    )
    print_result(record, forecast_text(record))


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
) -> int:
    """Train a few steps undisturbed, again with kills and resumptions, and compare every number."""
    from dure.config.loading import load_experiment
    from dure.config.rehearsal import with_options
    from dure.outputs import output_folder
    from dure.preflight.before import check_settings
    from dure.resume_check.checking import shortened
    from dure.resume_check.checking import verify_resume as verify
    from dure.resume_check.report import resume_table
    from dure.runtime.placement import choose_profile

    chosen = shortened(with_options(load_experiment(experiment, overrides or ()), rehearse=rehearse), steps)
    check_settings([chosen])
    machine = choose_profile(profile, notify)
    path = output_folder(f"{chosen.name}-verify-resume", output, resume=False)
    record = verify(chosen, profile=machine, path=path.resolve(), num_kills=kills, seed=seed, notify=notify)
    print_result(record, resume_table(record))
    return 0 if record["passed"] else 1
