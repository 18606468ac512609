"""Run experiments side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb


@verb("batch", place=30, background=True)
def batch(
    words: Annotated[
        list[str],
        typer.Argument(
            help="A study by name or YAML file, or experiments; and settings laid over all of them.",
            metavar="STUDY|EXPERIMENT… [KEY=VALUE…]",
            autocompletion=options.named_or_setting("study", "experiment"),
        ),
    ],
    only: Annotated[
        str | None,
        typer.Option("--only", help="Only these experiments, by number or name: 1,4.", metavar="LIST"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Run every experiment with so many seeds, and compare the means.", metavar="N"),
    ] = None,
    *,
    common: options.Training,
) -> int:
    """Run experiments side by side and compare them."""
    from dure.cli.running import run_study
    from dure.studies.batch.plan import plan_batch

    names, overrides = options.parted(words)
    study = plan_batch(names, overrides=overrides, only=only, seeds=seeds)
    return run_study(study, common.asked(), as_json=common.as_json)
