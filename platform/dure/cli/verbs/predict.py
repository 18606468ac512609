"""Predict a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify, print_result


@verb("predict", place=190)
def predict(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of a cross-validation.", metavar="RUN")
    ],
    source: Annotated[str, typer.Argument(help="Table to predict.", metavar="INPUT")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .csv, .tsv, .jsonl or .xlsx.", metavar="FILE"),
    ],
    overrides: options.Reading = None,
    fold: Annotated[
        int | None,
        typer.Option(help="Fold whose model predicts; all together when not given.", metavar="N"),
    ] = None,
    profile: options.ProfileOption = None,
    force: options.Force = False,
    trust_code: options.TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Predict a table with the best checkpoint of a run, or with those of all folds together."""
    from dure import api
    from dure.family.predicting import check_files
    from dure.reporting.console import progress_bar
    from dure.studies.crossval.driver import fold_runs

    check_files(fold_runs(run, fold), source, output, overrides=overrides or (), force=force)
    machine = api.choose_profile(profile, notify)
    from transformers.utils import logging

    logging.disable_progress_bar()  # the bar of a library would break into dure's own
    with progress_bar("predicting") as progress:
        outcome = api.predict(
            run,
            source,
            output,
            overrides=overrides or (),
            force=force,
            fold=fold,
            profile=machine,
            progress=progress,
            notify=notify,
            trust_code=trust_code,
        )
    text = f"{outcome['rows']:,} predictions in {outcome['output']}"
    if outcome["skipped"]:
        text += f", and {outcome['skipped']:,} without one (rows that were skipped)"
    print_result(outcome, text, as_json=as_json)
