"""What the verbs of the unified training have in common: their options, and the study that these describe.

A preset is a study of kind unified in the library: ``--preset tiny`` is ``unified_tiny``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dure.cli import options
from dure.cli.printing import tell
from dure.config.library import available
from dure.errors import UserError, nearest

TEST_EPOCHS = 2
_PREFIX = "unified_"


def _presets(incomplete: str) -> list[str]:
    names = [name.removeprefix(_PREFIX) for name in available("study") if name.startswith(_PREFIX)]
    return [name for name in names if name.startswith(incomplete)]


Preset = Annotated[str, typer.Option(help="Size of the model.", metavar="NAME", autocompletion=_presets)]
Epochs = Annotated[int | None, typer.Option(help="Passes over the rows.", metavar="N")]
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


def run_preset(
    preset: str,
    overrides: list[str] | None,
    common: Rows,
    *,
    resume: Path | None = None,
    few: int | None = None,
    **settings: Any,
) -> int:
    """Run the unified training of a preset and return the exit code.

    Args:
        preset: Its name.
        overrides: ``a.b=value`` texts.
        common: The options.
        resume: Folder to continue, or the checkpoint in it to go back to.
        few: Samples when the options say none; all when None.
        settings: Keys of :class:`dure.studies.unified.plan.UnifiedStudy`; None leaves them as the preset has them.

    Raises:
        UserError: There is no such preset, or nothing to resume.
    """
    from dure.cli.running import run_study
    from dure.config.loading import checked
    from dure.studies.study import load_study_of
    from dure.studies.unified.plan import UnifiedStudy

    if preset not in _presets(""):
        raise UserError(
            f"there is no preset '{preset}'",
            where="--preset",
            expected=f"one of: {', '.join(_presets(''))}",
            hint=nearest(preset, _presets("")),
        )
    found = load_study_of(UnifiedStudy, f"{_PREFIX}{preset}").with_overrides(overrides or ())
    given = {key: value for key, value in settings.items() if value is not None}
    if common.batch_size is not None:
        given["batch_size"] = common.batch_size
    places: dict[tuple[str, ...], str] = {(key,): f"--{key.replace('_', '-')}" for key in given}
    study = checked(UnifiedStudy, found.said() | given, places, "dure unified-train")
    if (samples := common.samples) is not None:
        tell(
            f"{samples} samples: at most {samples} training and {samples} validation rows; where the old system took "
            f"it for epochs, training.epochs={samples} says that"
        )
    more: dict[str, Any] = {"samples": few if samples is None else samples}
    if resume is not None:
        is_epoch = resume.suffix == ".pt"
        folder = resume.absolute().parent.parent if is_epoch else resume
        more |= {"resume": True, "output": folder, "back_to": resume if is_epoch else None}
    try:
        return run_study(study, common.asked(**more), as_json=common.as_json)
    except UserError as error:
        if resume is None or error.where != "--resume":
            raise
        raise UserError(
            "this is no unified training",
            where=f"--resume {resume}",
            expected="its folder, or a checkpoint_epoch_….pt of its checkpoints_final/",
        ) from None
