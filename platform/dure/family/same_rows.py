"""Whether a run that goes on has the rows that it was started with, wherever their tables lie by now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dure.config.data import source_name
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.family.corpus import read_splits
from dure.family.loading import load_family
from dure.files import read_json

_LEVELS = 2
"""A stage lies in the folder of its candidate, and that in its study's."""


def require_same_rows(experiment: Experiment, path: Path) -> None:
    """Check that the tables of an experiment hold the rows that its runs were started with.

    ``path`` is the folder of the run; or of a study of this experiment, whose trials lie in it.

    Raises:
        UserError: The rows of a split are others, or in another order.
    """
    records = [file for depth in range(_LEVELS + 1) for file in path.glob(f"{'*/' * depth}environment.json")]
    found = {file: _hashes(file) for file in records}
    splits = {split for before in found.values() for split in before}
    if not splits:
        return
    # What no run was started with, such as the dev table beside the folds of a cross-validation, is not looked at.
    unused = {f"data.{split}": None for split in ("dev", "test") if split not in splits}
    now = read_splits(load_family(experiment.with_(unused))).hashes()
    for file, before in found.items():
        for split, content in before.items():
            if now.get(split) != content:
                source = getattr(experiment.data, split)
                raise UserError(
                    f"these are not the rows that the run was started with (see {file.parent})",
                    where=f"data.{split}={'' if source is None else source_name(source)}",
                    expected="the same rows in the same order; their file may be another one",
                    hint="put the table back as it was, or start a new run without --resume",
                )


def _hashes(file: Path) -> Mapping[str, str]:
    hint = "remove it, and the rows are not compared"
    found = read_json(file, what="record of an environment", hint=hint).get("data", {})
    if isinstance(found, dict) and all(isinstance(each, str) for each in found.values()):
        return found
    raise UserError("'data' is no hash by split", where=str(file), hint=hint)
