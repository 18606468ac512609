"""Try the unified training."""

from __future__ import annotations

from dure.cli import options, unified
from dure.cli.app import verb


@verb("unified-test", place=100, background=True)
def unified_test(
    overrides: options.Overrides = None,
    preset: unified.Preset = None,
    epochs: unified.TestEpochs = None,
    resume: unified.ResumeFrom = None,
    *,
    common: unified.Rows,
) -> int:
    """Try the unified training, everything on: sweep, two epochs, sweet spots, crossover."""
    every = ["training.keep_epochs=1", *(overrides or ())]  # there are few
    if epochs is None and resume is None:
        epochs = unified.TEST_EPOCHS
    return unified.run_preset(preset, every, common, default=unified.PRESET, resume=resume, epochs=epochs)
