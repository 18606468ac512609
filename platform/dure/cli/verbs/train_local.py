"""Train one epoch on a few rows."""

from __future__ import annotations

from dure.cli import options, unified
from dure.cli.app import verb

_ROWS = 16


@verb("train-local", place=120, background=True)
def train_local(
    overrides: options.Overrides = None, preset: unified.Preset = None, *, common: unified.Rows
) -> int:
    """Train one epoch on a few rows and report what memory it took: no sweep, no crossover."""
    return unified.run_preset(
        preset, overrides, common, default=unified.PRESET, few=_ROWS, epochs=1, sweep=False, crossover=False
    )
