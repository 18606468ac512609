"""Run experiments side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb


@verb("batch", place=30, background=True)
def batch(
    study: options.StudyName,
    overrides: options.Overrides = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Only these experiments, by number or name: 1,4.", metavar="LIST"),
    ] = None,
    *,
    common: options.Training,
) -> int:
    """Run the experiments of a study side by side and compare them."""
    from dure.cli.running import run_study
    from dure.studies.batch.plan import BatchStudy
    from dure.studies.study import load_study_of

    chosen = load_study_of(BatchStudy, study).with_overrides(overrides or ()).chosen(only)
    return run_study(chosen, common.asked(), as_json=common.as_json)
