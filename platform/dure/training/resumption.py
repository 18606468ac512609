"""Continuing a run: with the experiment that its folder was started with, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dure.config.loading import load_experiment
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.training.records import RunFolder


def stored_experiment(path: Path, wanted: Experiment) -> Experiment:
    """Return the experiment that a folder was started with.

    Raises:
        UserError: It is not the wanted one: continuing would mix two experiments.
    """
    file = RunFolder(path).experiment
    if not file.is_file():
        return wanted
    stored = load_experiment(str(file))
    for key, value in _flat(stored.model_dump(mode="json")).items():
        now = _flat(wanted.model_dump(mode="json")).get(key)
        if now != value:
            raise UserError(
                f"'{key}' is {now!r} now, and the run was started with {value!r}",
                where=str(file),
                hint="resume with the same settings, or start a new run without --resume",
            )
    return stored


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        result |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return result
