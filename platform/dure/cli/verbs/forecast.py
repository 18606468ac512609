"""Say what a run or study will take before it starts."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result


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
    as_json: options.Json = False,
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
    print_result(record, forecast_text(record), as_json=as_json)
