"""Score a run on a table."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import print_result


@verb("evaluate", place=195)
def evaluate(
    run: options.Run,
    table: Annotated[str, typer.Argument(help="Table with inputs and targets.", metavar="TABLE")],
    overrides: options.Reading = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold of a cross-validation whose model is scored.", metavar="N")
    ] = None,
    profile: options.ProfileOption = None,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Score the final model of a run on a table, with the metrics of its validation."""
    from dure import api
    from dure.reporting.console import progress_bar
    from dure.reporting.summary import evaluation_report

    with progress_bar("evaluating") as progress:
        found = api.evaluate(
            run,
            table,
            overrides=overrides or (),
            fold=fold,
            profile=profile,
            notify=progress.say,
            trust_code=trust_code,
        )
    print_result(found, evaluation_report(found), as_json=as_json)
