"""The runs that folders hold, by what they left there, and which of them are one setting.

Nothing is imported that a folder names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

from dure.config.loading import load_record
from dure.config.schema import Experiment
from dure.config.tree import flat
from dure.errors import UserError, shown_path
from dure.metrics.metric import Metric, recorded
from dure.reporting.figures import setting_text
from dure.runs.budget import runs_in
from dure.runs.folder import RunFolder, RunResult
from dure.runs.resuming import FREE, PLACES

_REPEATED = ("experiment.name", "experiment.seed", "data.fold.number")
"""Settings in which the runs of one setting differ."""
_ENDINGS = re.compile(r"[._-]*(seed|fold|s)?[._-]*\d*$")
_MOST_SHOWN = 3


@dataclass(frozen=True)
class LeftRun:
    """A run that completed.

    ``given`` is what the user named it by: its folder, or one around it. ``hashes`` are of the rows of each split's
    table.
    """

    path: Path
    given: str
    experiment: Experiment
    result: RunResult
    hashes: Mapping[str, str]

    @property
    def folder(self) -> RunFolder:
        """The names in its folder."""
        return RunFolder(self.path)

    @property
    def fold(self) -> int | None:
        """The fold that it held out, if it did."""
        fold = self.experiment.data.fold
        return None if fold is None else fold.number

    def metric(self, bare: str) -> Metric:
        """Return a metric of validation by its name without ``eval_``, as its family defined it for the run."""
        return recorded({"definitions": self.result.definitions}, f"eval_{bare}")

    def figure(self, name: str) -> float | None:
        """Return a figure of the result; None where there is none, or no number."""
        value = self.result.metrics.get(name)
        return float(value) if isinstance(value, int | float) else None


def folders_of(named: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """Return the folders that names and patterns mean, each with its name.

    Raises:
        UserError: One means none.
    """
    found = []
    for each in map(str, named):
        path = Path(each)
        start = Path(path.anchor)
        paths = [path] if path.exists() else sorted(start.glob(str(path.relative_to(start))))
        folders = [path for path in paths if path.is_dir()]
        if not folders:
            raise UserError(
                "there is no such folder",
                where=each,
                expected="the folder of a run or study, or a pattern of such",
                hint="dure runs shows what there is",
            )
        found += [(each if len(folders) == 1 else str(folder), folder) for folder in folders]
    return found


def completed_runs(named: Sequence[str | Path]) -> tuple[list[LeftRun], list[str]]:
    """Return the runs in folders of runs and studies that completed, and a line about each of the others.

    Raises:
        UserError: A name means no folder, a folder holds no run, or a record in it is broken.
    """
    runs: dict[Path, LeftRun] = {}
    others: dict[Path, str] = {}
    for given, folder in folders_of(named):
        # Without what only keeps the experiment of the runs beneath it, or the model of one of them.
        found = [run for run in runs_in(folder) if run.environment.is_file()]
        around = {parent for run in found for parent in run.path.parents}
        trained = sorted(
            (run for run in found if run.metrics.is_file() or run.path not in around),
            key=lambda run: run.path,
        )
        if not trained:
            raise UserError(
                "it holds no run",
                where=given,
                expected="the folder of a run or study",
                hint="dure runs shows them",
            )
        for run in trained:
            result = run.read_result()
            if result is not None and result.state == "completed":
                runs.setdefault(run.path.resolve(), _read(run, given, result))
            else:
                state = "not ended" if result is None else result.state
                why = f": {result.error}" if result is not None and result.error else ""
                others[run.path.resolve()] = f"{shown_path(run.path)} is not compared: it is {state}{why}"
    return list(runs.values()), list(others.values())


def _read(run: RunFolder, given: str, result: RunResult) -> LeftRun:
    hashes = {split: str(content) for split, content in run.read_environment().get("data", {}).items()}
    return LeftRun(run.path, given, load_record(run.experiment), result, hashes)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed, or the fold that they held out.

    Its name is unlike all others of the comparison; its values are those, by dotted key, in which the compared ones
    differ.
    """

    name: str
    runs: tuple[LeftRun, ...]
    values: Mapping[str, Any]

    @property
    def by_seed(self) -> dict[int, list[LeftRun]]:
        """The runs by their seed; several, when they held out folds."""
        found: dict[int, list[LeftRun]] = {}
        for run in sorted(self.runs, key=lambda run: (run.experiment.experiment.seed, run.fold or 0)):
            found.setdefault(run.experiment.experiment.seed, []).append(run)
        return found


def settings_of(runs: Sequence[LeftRun]) -> list[Setting]:
    """Return the settings of runs, in their order, each with a name of its own and with what differs."""
    groups: dict[str, list[LeftRun]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    parts = [part for group in groups.values() for part in _parted(group)]
    differing = _differing([part[0] for part in parts])
    found = [
        Setting(_common_name(part), tuple(part), {key: flat_of(part[0]).get(key) for key in differing})
        for part in parts
    ]
    return _named_apart(found)


def run_names(settings: Sequence[Setting]) -> dict[Path, str]:
    """Return what every run is called beside the others: as its setting, with seed and fold where that has several."""
    return {
        run.path.resolve(): setting.name if len(setting.runs) == 1 else f"{setting.name} · {_repetition(run)}"
        for setting in settings
        for run in setting.runs
    }


def _repetition(run: LeftRun) -> str:
    fold = "" if run.fold is None else f", fold {run.fold}"
    return f"seed {run.experiment.experiment.seed}{fold}"


def flat_of(run: LeftRun) -> dict[str, Any]:
    """Return the settings of a run by dotted key, but for those that change no number and those of repetition."""
    values = flat(run.experiment.model_dump(mode="json"))
    # A fold is cut from the training table: other tables take no part.
    unread = _REPEATED if run.fold is None else {*_REPEATED, "data.dev", "data.test"}
    return {
        key: value
        for key, value in values.items()
        if key not in unread and not any(fnmatchcase(key, pattern) for pattern in FREE)
    }


def _key(run: LeftRun) -> str:
    """Return what is equal for runs of one setting: rows count by their contents, wherever they lie."""
    kept = {f"data.{split}" for split in {"train", "dev", "test"} - run.hashes.keys()}
    values = {
        key: value
        for key, value in flat_of(run).items()
        if key in kept or not any(fnmatchcase(key, pattern) for pattern in PLACES)
    }
    return json.dumps([values, dict(run.hashes)], sort_keys=True, default=str)


def _parted(group: list[LeftRun]) -> list[list[LeftRun]]:
    """Part runs of equal settings that are no repetitions: those that were given apart, else one by one."""
    if _are_repetitions(group):
        return [group]
    given: dict[str, list[LeftRun]] = {}
    for run in group:
        given.setdefault(run.given, []).append(run)
    if all(map(_are_repetitions, given.values())):
        return list(given.values())
    return [[run] for run in group]


def _are_repetitions(runs: list[LeftRun]) -> bool:
    return len({(run.experiment.experiment.seed, run.fold) for run in runs}) == len(runs)


def _differing(runs: Sequence[LeftRun]) -> list[str]:
    tables = [flat_of(run) for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    differing = [
        key for key in keys if len({json.dumps(table.get(key), default=str) for table in tables}) > 1
    ]
    same = {split for split in ("train", "dev", "test") if len({run.hashes.get(split) for run in runs}) == 1}
    # A table of the same rows at another place is no other setting.
    return [key for key in differing if key.removeprefix("data.") not in same]


def _common_name(runs: Sequence[LeftRun]) -> str:
    names = [run.result.name for run in runs]
    if len(set(names)) == 1:
        return names[0]
    together = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    return _ENDINGS.sub("", "".join(letters[0] for letters in together)) or names[0]


def _named_apart(settings: list[Setting]) -> list[Setting]:
    """Give settings of one name what differs between them, or else their folders, as a part of it."""
    by_name: dict[str, list[Setting]] = {}
    for setting in settings:
        by_name.setdefault(setting.name, []).append(setting)
    names: dict[int, str] = {}
    for alike in by_name.values():
        values = [_few_values(each, alike) for each in alike]
        if len(alike) == 1 or len({*values}) < len(values) or "" in values:
            values = [""] if len(alike) == 1 else _folders(alike)
        for each, value in zip(alike, values, strict=True):
            names[id(each)] = f"{each.name} ({value})" if value else each.name
    return [replace(each, name=names[id(each)]) for each in settings]


def _few_values(setting: Setting, alike: Sequence[Setting]) -> str:
    differing = [
        key
        for key in setting.values
        if len({json.dumps(each.values[key], default=str) for each in alike}) > 1
    ]
    if len(differing) > _MOST_SHOWN:
        return ""
    return ", ".join(f"{key.rpartition('.')[2]}={setting_text(setting.values[key])}" for key in differing)


def _folders(settings: Sequence[Setting]) -> list[str]:
    paths = [str(each.runs[0].path if len(each.runs) == 1 else each.runs[0].path.parent) for each in settings]
    if len(set(paths)) < len(paths):
        paths = [str(each.runs[0].path) for each in settings]
    return [os.path.relpath(path, os.path.commonpath(paths)) for path in paths]
