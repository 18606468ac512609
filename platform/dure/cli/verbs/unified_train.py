"""Run the unified training."""

from __future__ import annotations

from dure.cli import options, unified
from dure.cli.app import verb


@verb("unified-train", place=90, background=True)
def unified_train(
    overrides: options.Overrides = None,
    preset: unified.Preset = None,
    epochs: unified.Epochs = None,
    resume: unified.ResumeFrom = None,
    *,
    common: unified.Rows,
) -> int:
    """Run the unified training: sweep, 60 epochs, sweet spots of every module, crossover."""
    return unified.run_preset(preset, overrides, common, default=unified.PRESET, resume=resume, epochs=epochs)
