"""The unified training, and its trials: what they have in common, and the study that their options describe.

A preset is a study of kind unified in the library: ``--preset tiny`` is ``unified_tiny``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dure.cli import options
from dure.cli.app import verb
from dure.cli.printing import notify
from dure.config.library import available
from dure.errors import UserError, nearest

if TYPE_CHECKING:
    from dure.studies.unified.plan import UnifiedStudy

_PREFIX = "unified_"
_TEST_EPOCHS = 2
_FEW_ROWS = 16


def _presets(incomplete: str) -> list[str]:
    names = [name.removeprefix(_PREFIX) for name in available("study") if name.startswith(_PREFIX)]
    return [name for name in names if name.startswith(incomplete)]


Preset = Annotated[
    str | None,
    typer.Option(
        help="Size of the model: 730m, as when not given, 800m, 320m or tiny; with --resume that of the folder.",
        metavar="NAME",
        autocompletion=_presets,
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the rows.", metavar="N")]
TestEpochs = Annotated[int | None, typer.Option(help=f"Passes over the rows ({_TEST_EPOCHS}).", metavar="N")]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Continue this folder, or go on after the epoch of this file of its checkpoints_final/.",
        metavar="PATH",
    ),
]


@dataclass(frozen=True)
class Rows(options.Where):
    """Options of all of them."""

    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", envvar="SAMPLES", help="Use at most N training and N validation rows.", metavar="N"
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(help="Rows of one forward pass; accumulation keeps the effective batch.", metavar="N"),
    ] = None


@verb("unified-train", place=90, background=True)
def unified_train(
    overrides: options.Overrides = None,
    preset: Preset = None,
    epochs: Epochs = None,
    resume: ResumeFrom = None,
    *,
    common: Rows,
) -> int:
    """Run the unified training: sweep, 60 epochs, sweet spots of every module, crossover."""
    return _run(preset, overrides, common, resume=resume, epochs=epochs)


@verb("unified-test", place=100, background=True)
def unified_test(
    overrides: options.Overrides = None,
    preset: Preset = None,
    epochs: TestEpochs = None,
    resume: ResumeFrom = None,
    *,
    common: Rows,
) -> int:
    """Try the unified training, everything on: sweep, two epochs, sweet spots, crossover."""
    return _try(preset, overrides, common, resume=resume, epochs=epochs)


@verb("unified-test-v1", place=110, background=True)
def unified_test_v1(
    overrides: options.Overrides = None,
    preset: Annotated[
        Literal["800m", "320m"] | None,
        typer.Option(help="Size of the older model (800m); with --resume that of the folder."),
    ] = None,
    epochs: TestEpochs = None,
    resume: ResumeFrom = None,
    *,
    common: Rows,
) -> int:
    """Try the unified training with one of the older models."""
    return _try(preset, overrides, common, default="800m", resume=resume, epochs=epochs)


@verb("train-local", place=120, background=True)
def train_local(overrides: options.Overrides = None, preset: Preset = None, *, common: Rows) -> int:
    """Train one epoch on a few rows and report what memory it took: no sweep, no crossover."""
    epochs = _unless_set(1, overrides)
    return _run(preset, overrides, common, few=_FEW_ROWS, epochs=epochs, sweep=False, crossover=False)


def _try(
    preset: str | None,
    overrides: list[str] | None,
    common: Rows,
    *,
    default: str = "730m",
    resume: Path | None,
    epochs: int | None,
) -> int:
    """Run few epochs, and keep every one of them, since there are few."""
    if epochs is None and resume is None:
        epochs = _unless_set(_TEST_EPOCHS, overrides)
    every = ["training.keep_epochs=1", *(overrides or ())]
    return _run(preset, every, common, default=default, resume=resume, epochs=epochs)


def _run(
    preset: str | None,
    overrides: list[str] | None,
    common: Rows,
    *,
    default: str = "730m",
    resume: Path | None = None,
    few: int | None = None,
    **settings: Any,
) -> int:
    """Run the unified training of a preset and return the exit code.

    A new training for which no preset is given takes ``default``, and one without samples ``few``. Of the settings,
    which are keys of :class:`dure.studies.unified.plan.UnifiedStudy`, None leaves them as they are.

    Raises:
        UserError: There is no such preset, or nothing to resume.
    """
    from dure.cli.running import run_study
    from dure.config.loading import checked
    from dure.outputs import pull
    from dure.studies.unified.plan import UnifiedStudy

    is_epoch = resume is not None and resume.suffix == ".pt"
    folder = resume.absolute().parent.parent if resume is not None and is_epoch else resume
    asked = common.asked(samples=few if common.samples is None else common.samples)
    found = _preset(preset or default)
    if folder is not None:
        if not asked.dry_run:
            pull(asked.machine, folder, asked.notify)
        found = _continued(folder, preset, str(resume))
    if settings.get("epochs") is not None:
        found = _without_epochs(found, overrides, f"--epochs {settings['epochs']}")
    settings["batch_size"] = common.batch_size
    given = {key: value for key, value in settings.items() if value is not None}
    places: dict[tuple[str, ...], str] = {(key,): f"--{key.replace('_', '-')}" for key in given}
    if (samples := common.samples) is not None:
        notify(
            f"{samples} samples: at most {samples} training and {samples} validation rows; the old system sometimes read "
            f"this number as epochs, which is training.epochs={samples} here"
        )
    # What the folder says already is not said twice, so that the study stays what it was.
    more = [each for each in overrides or () if each not in found.overrides]
    study = checked(UnifiedStudy, found.with_overrides(more).said() | given, places, "dure unified-train")
    if folder is None:
        study = _with_samples(study, asked.samples)
    else:
        asked = replace(asked, resume=True, output=folder, back_to=resume if is_epoch else None)
    return run_study(study, asked)


def _says_epochs(override: str) -> bool:
    return override.partition("=")[0] == "training.epochs"


def _unless_set(epochs: int, overrides: list[str] | None) -> int | None:
    """Return the usual epochs of a verb; None where a setting says how many."""
    return None if any(map(_says_epochs, overrides or ())) else epochs


def _without_epochs(study: UnifiedStudy, overrides: list[str] | None, where: str) -> UnifiedStudy:
    """Return a study without the setting that would win over the option ``--epochs``.

    Raises:
        UserError: The same command gives both.
    """
    if any(map(_says_epochs, overrides or ())):
        raise UserError("training.epochs is given too", where=where, hint="give one of them")
    kept = [each for each in study.overrides if not _says_epochs(each)]
    return study.with_values(overrides=kept) if len(kept) < len(study.overrides) else study


def _preset(name: str) -> UnifiedStudy:
    """Return the study of a preset."""
    from dure.studies.study import load_study_of
    from dure.studies.unified.plan import UnifiedStudy

    if name not in _presets(""):
        raise UserError(
            f"there is no preset '{name}'",
            where="--preset",
            expected=f"one of: {', '.join(_presets(''))}",
            hint=nearest(name, _presets("")),
        )
    return load_study_of(UnifiedStudy, f"{_PREFIX}{name}")


def _continued(folder: Path, preset: str | None, said: str) -> UnifiedStudy:
    """Return the study of a folder, with all that its first command said."""
    from dure.runs.folder import STUDY_FILE
    from dure.studies.study import stored_study
    from dure.studies.unified.plan import UnifiedStudy

    if not (folder / STUDY_FILE).is_file():
        raise UserError(
            "this is no unified training",
            where=f"--resume {said}",
            expected="its folder, or a checkpoint_epoch_….pt of its checkpoints_final/",
            hint="dure runs, which lists the folders",
        )
    found = stored_study(folder, UnifiedStudy)
    if preset is not None and _preset(preset).experiment != found.experiment:
        raise UserError(
            f"the training in this folder is of {found.experiment}, not of this preset",
            where=f"--preset {preset}",
            hint="leave it out: the folder knows its own",
        )
    return found


def _with_samples(study: UnifiedStudy, samples: int | None) -> UnifiedStudy:
    """Return the study with its limit of rows among its settings, where a later session finds it."""
    from dure.config.given import overrides_of
    from dure.config.rehearsal import limited_rows

    if samples is None or samples < 1:
        return study
    return study.with_overrides(overrides_of(limited_rows(study.load()[0], samples)))
