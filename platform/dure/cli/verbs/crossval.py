"""Cross-validate experiments."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb


@verb("crossval", place=60, background=True)
def crossval(
    words: Annotated[
        list[str],
        typer.Argument(
            help="Experiments by name or YAML file, and settings laid over all of them.",
            metavar="EXPERIMENT… [KEY=VALUE…]",
            autocompletion=options.named_or_setting("experiment"),
        ),
    ],
    folds: Annotated[
        int | None, typer.Option(help="Parts that the training table is cut into (5).", metavar="N")
    ] = None,
    drop_worse: Annotated[
        bool,
        typer.Option("--drop-worse", help="Train an experiment no further once it is clearly worse."),
    ] = False,
    *,
    common: options.Training,
) -> int:
    """Cross-validate experiments on the same stratified folds and compare them."""
    from dure.cli.running import run_study
    from dure.errors import UserError
    from dure.studies.crossval.plan import plan_crossval

    names, overrides = options.parted(words)
    if not names:
        raise UserError("no experiment is named", where="dure crossval", hint="dure list shows their names")
    study = plan_crossval(names, overrides=overrides, folds=folds, drop_worse=drop_worse)
    return run_study(study, common.asked(), as_json=common.as_json)
