"""Experiments and studies, as their YAML says them, side by side, or over folds."""

from __future__ import annotations

from typing import Annotated

import typer

from dure.cli import options
from dure.cli.app import verb


@verb("train", place=10, background=True)
def train(
    experiment: options.ExperimentName,
    overrides: options.Overrides = None,
    from_sweep: options.FromSweep = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data; training.epochs.", metavar="N")
    ] = None,
    *,
    common: options.Training,
) -> int:
    """Run one experiment."""
    from dure.cli.running import run_experiment
    from dure.studies.sweep.driver import experiment_to_train

    asked = common.asked()
    chosen = experiment_to_train(experiment, overrides or (), asked, from_sweep=from_sweep, epochs=epochs)
    return run_experiment(chosen, asked)


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
        return run_experiment(load_experiment(what, overrides or ()), common.asked())
    study = load_study(what).with_overrides(overrides or ())
    return run_study(study, common.asked())


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
    from dure.studies.batch.planning import plan_batch

    names, overrides = options.parted(words)
    study = plan_batch(names, overrides=overrides, only=only, seeds=seeds)
    return run_study(study, common.asked())


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
    return run_study(study, common.asked())
