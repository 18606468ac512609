"""Try the unified training with one of the older models."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dure.cli import options, unified
from dure.cli.app import verb


@verb("unified-test-v1", place=110, background=True)
def unified_test_v1(
    overrides: options.Overrides = None,
    preset: Annotated[
        Literal["800m", "320m"] | None,
        typer.Option(help="Size of the older model (800m); with --resume that of the folder."),
    ] = None,
    epochs: unified.TestEpochs = None,
    resume: unified.ResumeFrom = None,
    *,
    common: unified.Rows,
) -> int:
    """Try the unified training with one of the older models."""
    every = ["training.keep_epochs=1", *(overrides or ())]
    if epochs is None and resume is None:
        epochs = unified.TEST_EPOCHS
    return unified.run_preset(preset, every, common, default="800m", resume=resume, epochs=epochs)
