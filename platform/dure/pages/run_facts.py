"""What the page of a run says that stands in none of its records as it is; recomputed when the page is verified."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.config.tree import plain, read_yaml
from dure.data.cells import LONGEST_CELL
from dure.errors import counted, shell_word
from dure.events import Notice, RunStart
from dure.events.stream import read_events
from dure.files import MAX_RECORD_BYTES, hash_of
from dure.metrics.metric import Metric, recorded
from dure.reporting.figures import duration, gains_of
from dure.reporting.targets import target_sentence
from dure.reporting.verdicts import run_sentences
from dure.runs.folder import SCORE, RunFolder
from dure.runs.manifest import MANIFEST
from dure.runs.restarts import Restarts
from dure.runs.row_scores import read_scores

_MOST_EXAMPLES = 10
_MOST_NOTICES = 200
_RECORDS = ("experiment.yaml", "environment.json", "metrics.jsonl", "result.json", "predictions.csv")


def run_facts(path: Path) -> dict[str, Any]:
    """Return what the page of one run is made of, beside its records.

    Raises:
        UserError: A record is broken.
    """
    folder = RunFolder(path)
    result = folder.read_result()
    experiment = experiment_of(path)
    metric = best_metric(path)
    state = "not finished" if result is None else result.state
    seconds = None if result is None else result.seconds
    name = experiment.get("experiment", {}).get("name", path.name)
    error = None if result is None else result.error
    return {
        "name": name,
        "state": state,
        "metric": metric.name,
        "sentences": [
            f"{name}: {state} in {duration(seconds)}." if not error else f"{name}: {state}. {error}",
            *worth_of(folder),
            *([] if result is None else map(target_sentence, result.targets)),
        ],
        "gains": {} if result is None else gains_of(result.metrics),
        "command": _command(path),
        **facts_of_runs(path, {name: path}),
    }


def worth_of(folder: RunFolder) -> list[str]:
    """Return what the figures of a run are worth, in sentences.

    Raises:
        UserError: A record is broken.
    """
    result, metric = folder.read_result(), best_metric(folder.path)
    return run_sentences(metric, {} if result is None else result.metrics, _test_scores(folder, metric))


def _test_scores(folder: RunFolder, metric: Metric) -> NDArray[np.float64] | None:
    """Return what every test row adds to a metric that is a mean over rows; None of hits, which are a share."""
    rows = read_scores([folder.predictions])
    scores = None if rows is None else rows.scores.get(metric.name.removeprefix("eval_"))
    if scores is None or not np.isfinite(scores).all() or np.isin(scores, (0, 1)).all():
        return None
    return scores


def facts_of_runs(base: Path, runs: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the pages of runs and of studies have in common."""
    environments = {name: RunFolder(path).read_environment() for name, path in runs.items()}
    return {
        "runs": {name: os.path.relpath(path, base) for name, path in runs.items()},
        "machines": _groups(environments, _machine),
        "data": _groups(environments, lambda each: each.get("data")),
        "seeds": _groups(environments, lambda each: each.get("seed")),
        "hashes": {name: _hashes(path) for name, path in runs.items()},
        "restarts": [
            {"run": name, **entry} for name, path in runs.items() for entry in Restarts(path, "").entries()
        ],
        "notices": (notices := _notices(base))[:_MOST_NOTICES],
        "num_more_notices": max(0, len(notices) - _MOST_NOTICES),
        "examples": _examples(runs),
    }


def experiment_of(path: Path) -> dict[str, Any]:
    """Return the resolved experiment of a run as plain data."""
    file = RunFolder(path).experiment
    return dict(plain(read_yaml(file))) if file.is_file() else {}


def best_metric(path: Path) -> Metric:
    """Return what a run's best checkpoint was chosen by, as its record defines it."""
    name = str(experiment_of(path).get("training", {}).get("best_metric", "eval_loss"))
    result = RunFolder(path).read_result()
    return recorded({"definitions": {} if result is None else result.definitions}, name)


def _groups(environments: Mapping[str, Mapping[str, Any]], key: Any) -> list[list[str]]:
    """Return the names of runs whose environment says the same, the first group first."""
    groups: list[tuple[Any, list[str]]] = []
    for name, environment in environments.items():
        value = key(environment)
        if value is None:
            continue
        group = next((names for known, names in groups if known == value), None)
        if group is None:
            groups.append((value, [name]))
        else:
            group.append(name)
    return [names for _, names in groups]


def _machine(environment: Mapping[str, Any]) -> Mapping[str, Any] | None:
    apart = {"data", "seed"}
    return {key: value for key, value in environment.items() if key not in apart} or None


def _hashes(path: Path) -> dict[str, str]:
    """Return the XXH3 of every record that a run left, and that of its final weights."""
    files = {name: path / name for name in _RECORDS} | {"final_model": RunFolder(path).final_model / MANIFEST}
    return {name: hash_of(file) for name, file in files.items() if file.is_file()}


def _notices(base: Path) -> list[dict[str, str]]:
    return [
        {"at": entry.at.isoformat(timespec="seconds"), "message": entry.event.message}
        for entry in read_events(RunFolder(base).events)
        if isinstance(entry.event, Notice)
    ]


def _command(path: Path) -> str:
    """Return what trains the same again: the record of the run where it lay when it was started."""
    entries = read_events(RunFolder(path).events)
    started = [entry.event for entry in entries if isinstance(entry.event, RunStart)]
    place = f"{started[0].path}/" if started else ""
    profile = RunFolder(path).read_environment().get("profile", {}).get("name")
    return f"dure train {shell_word(f'{place}experiment.yaml')}" + (
        f" --profile {profile}" if profile else ""
    )


def _examples(runs: Mapping[str, Path]) -> dict[str, Any] | None:
    """Return which rows of which run's predictions are shown: up to half of them wrong, where that can be said."""
    for name, path in runs.items():
        file = RunFolder(path).predictions
        # A page reads its rows from the file, whole.
        if not file.is_file() or file.stat().st_size > MAX_RECORD_BYTES:
            continue
        csv.field_size_limit(LONGEST_CELL)
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            names = [column for column in columns if column.startswith(SCORE)]
            scores = [[row[each] for each in names] for row in reader]
        hit = next(
            (each for place, each in enumerate(names) if _are_hits(row[place] for row in scores)), None
        )
        is_right = [hit is not None and float(row[names.index(hit)]) == 1 for row in scores]
        chosen = _chosen(is_right)
        told = f"{len(chosen)} of {counted(len(scores), 'row')} that {name} is reported on"
        if hit is not None:
            told += f"; it is right on {sum(is_right):,} of them, and up to half of those shown are wrong"
        told += "; rows are numbered from 0."
        return {"run": name, "columns": columns, "hit": hit, "rows": chosen, "told": told}
    return None


def _are_hits(cells: Iterable[str]) -> bool:
    """Return whether the score of every row is 0 or 1, so that it says which rows are right."""
    return {*cells} <= {"0.0", "1.0"}


def _chosen(is_right: Sequence[bool]) -> list[int]:
    wrong = [row for row, right in enumerate(is_right) if not right]
    right = [row for row, right in enumerate(is_right) if right]
    half = _MOST_EXAMPLES // 2
    num_wrong = min(len(wrong), max(half, _MOST_EXAMPLES - len(right)))
    return sorted([*wrong[:num_wrong], *right[: _MOST_EXAMPLES - num_wrong]])
