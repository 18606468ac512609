"""The verbs of the unified training: unified-test, unified-train, unified-test-v1 and train-local."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from dure.cli import options
from dure.cli.app import app
from dure.cli.printing import print_result, print_yaml, results_only_on_stdout, tell
from dure.config.schema import Experiment

Preset = Literal["730m", "800m", "320m", "tiny"]
_TEST_EPOCHS, _LOCAL_ROWS = 2, 16

PresetOption = Annotated[Preset, typer.Option(help="Size of the model.")]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Rows of one forward pass; accumulation keeps the effective batch.", metavar="N"),
]
SamplesOrVariable = Annotated[
    int | None,
    typer.Option(
        "--samples", envvar="SAMPLES", help="Use at most N training and N validation rows.", metavar="N"
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the rows.", metavar="N")]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Continue this folder, or go on after the epoch of this file of its checkpoints_final/.",
        metavar="PATH",
    ),
]


@app.command("unified-test")
@results_only_on_stdout
def unified_test(
    overrides: options.Overrides = None,
    preset: PresetOption = "730m",
    samples: SamplesOrVariable = None,
    epochs: Epochs = _TEST_EPOCHS,
    batch_size: BatchSize = None,
    resume: ResumeFrom = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    output: options.Output = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Try the unified training, everything on: sweep, two epochs, sweet spots, crossover."""
    more = ["training.keep_epochs=1", *(overrides or ())]  # every epoch, since there are few
    return _unified(
        preset,
        more,
        epochs=epochs,
        samples=samples,
        batch_size=batch_size,
        resume=resume,
        profile=profile,
        address=address,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


@app.command("unified-train")
@results_only_on_stdout
def unified_train(
    overrides: options.Overrides = None,
    preset: PresetOption = "730m",
    samples: SamplesOrVariable = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    resume: ResumeFrom = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    output: options.Output = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Run the unified training: sweep, 60 epochs, sweet spots of every module, crossover."""
    return _unified(
        preset,
        overrides or (),
        epochs=epochs,
        samples=samples,
        batch_size=batch_size,
        resume=resume,
        profile=profile,
        address=address,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


@app.command("unified-test-v1")
@results_only_on_stdout
def unified_test_v1(
    overrides: options.Overrides = None,
    preset: Annotated[Literal["800m", "320m"], typer.Option(help="Size of the older model.")] = "800m",
    samples: SamplesOrVariable = None,
    epochs: Epochs = _TEST_EPOCHS,
    batch_size: BatchSize = None,
    resume: ResumeFrom = None,
    profile: options.ProfileOption = None,
    address: options.Address = None,
    output: options.Output = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Try the unified training with one of the older models."""
    more = ["training.keep_epochs=1", *(overrides or ())]
    return _unified(
        preset,
        more,
        epochs=epochs,
        samples=samples,
        batch_size=batch_size,
        resume=resume,
        profile=profile,
        address=address,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
    )


@app.command("train-local")
@results_only_on_stdout
def train_local(
    overrides: options.Overrides = None,
    preset: PresetOption = "730m",
    samples: SamplesOrVariable = None,
    batch_size: BatchSize = None,
    profile: options.ProfileOption = None,
    output: options.Output = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> int:
    """Train one epoch on a few rows and tell what memory it took: no sweep, no crossover."""
    return _unified(
        preset,
        overrides or (),
        epochs=1,
        samples=_LOCAL_ROWS if samples is None else samples,
        batch_size=batch_size,
        profile=profile,
        output=output,
        dry_run=dry_run,
        as_json=as_json,
        whole=False,
    )


def _unified(
    preset: str,
    overrides: Sequence[str],
    *,
    epochs: int | None,
    samples: int | None,
    batch_size: int | None,
    resume: Path | None = None,
    profile: str | None,
    address: str | None = None,
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    whole: bool = True,
) -> int:
    """Do what the verbs have in common; ``whole`` with sweep and crossover. The rest are their options."""
    from dure import api
    from dure.epochs import unified as pipeline
    from dure.epochs.unified_table import unified_table
    from dure.jobs.background_folders import claim
    from dure.reporting.console import RunConsole, StudyConsole, terminal

    own = [] if epochs is None else [f"training.epochs={epochs}"]
    chosen = api.load_experiment(f"red_heart_{preset}", [*own, *overrides])
    chosen = api.shaped(_with_batch(chosen, batch_size), samples=samples)
    api.check([chosen], with_tables=not dry_run)
    if dry_run:
        print_yaml(chosen, as_json=as_json)
        return 0
    machine = api.choose_profile(profile, tell, address=address)
    name = f"{chosen.name}-unified"
    if resume is None:
        path, after = api.output_folder(name, output, resume=False, profile=machine), None
    else:
        api.bring(machine, pipeline.folder_of(resume))
        path, after = pipeline.resumption_of(resume)
    claim(path)
    with terminal() as screen:
        results = pipeline.unified(
            chosen,
            profile=machine,
            path=path,
            resume=resume is not None,
            after=after,
            sweeps=whole,
            crosses=whole,
            address=address,
            followers=[RunConsole(screen)],
            study_follower=StudyConsole(screen, metrics=[chosen.training.best_metric]),
            tell=screen.say,
        )
    print_result(results, unified_table(results), as_json=as_json)
    return 0 if results["state"] == "completed" else 1


def _with_batch(experiment: Experiment, batch_size: int | None) -> Experiment:
    """Return the experiment with other micro-batches and the same effective one."""
    from dure.errors import UserError

    if batch_size is None:
        return experiment
    effective = experiment.training.effective_batch_size
    if batch_size < 1 or effective % batch_size:
        raise UserError(
            f"{batch_size} rows do not make up steps of {effective}",
            where="--batch-size",
            expected=f"a part of {effective}",
        )
    values = {
        "training.batch_size": batch_size,
        "training.gradient_accumulation_steps": effective // batch_size,
    }
    return experiment.with_(values, "--batch-size")
