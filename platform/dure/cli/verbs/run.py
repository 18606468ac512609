"""Run a study of any kind as its YAML says it."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb


@verb("run", place=20, background=True)
def run(
    what: Annotated[
        str,
        typer.Argument(
            help="Study of any kind, or experiment: by name (see `dure list`) or YAML file.",
            metavar="STUDY",
            autocompletion=options.named("study", "experiment"),
        ),
    ],
    overrides: options.Overrides = None,
    *,
    common: options.Training,
) -> int:
    """Run a study of any kind, or an experiment, as its YAML says it."""
    from dure.cli.running import run_experiment, run_study
    from dure.config.loading import load_experiment
    from dure.studies.study import is_study, load_study

    if not is_study(what):
        return run_experiment(load_experiment(what, overrides or ()), common.asked(), as_json=common.as_json)
    study = load_study(what).with_overrides(overrides or ())
    return run_study(study, common.asked(), as_json=common.as_json)
