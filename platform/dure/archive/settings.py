"""Runs that differ only in seed or fold as one setting, and what differs between settings."""

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

from dure.archive.left import LeftRun
from dure.config.tree import flat
from dure.reporting.figures import setting_text
from dure.runs.resuming import FREE, PLACES

_REPEATED = ("experiment.name", "experiment.seed", "data.fold.number")
"""Settings in which the runs of one setting differ."""
_ENDINGS = re.compile(r"[._-]*(seed|fold|s)?[._-]*\d*$")
_MOST_SHOWN = 3


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
