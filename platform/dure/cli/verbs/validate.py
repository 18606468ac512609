"""Look before anything runs."""

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
    as_json: options.Json = False,
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
    print_result(record, validation_table(record), as_json=as_json)
    return _WRONG_CODE if record["num_failed"] else 0
