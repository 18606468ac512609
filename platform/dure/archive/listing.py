"""What lies in the outputs: runs and studies, each with how it stands, its best score and what it takes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from dure.errors import UserError, nearest, shown_path
from dure.files import in_bytes, json_or_none
from dure.metrics.metric import TEST, Direction, Metric, Unit, recorded, under
from dure.reporting.columns import STATE_STYLES, FittedTable, column
from dure.reporting.figures import NOTHING, duration, metric_phrase, number
from dure.runs.budget import bytes_in, runs_in
from dure.runs.folder import EVENTS_FILE, RUN_RECORD, STUDY_FILE, RunFolder
from dure.runs.lock import holder_of
from dure.studies.results import Record

State = Literal["running", "completed", "stopped", "diverged", "failed", "interrupted"]

_FOLDS = "crossval"
_KIND = re.compile(r"^kind:\s*(\w+)", re.MULTILINE)
_LONGEST_EVENT = 1 << 16
_SHORTEST_PATH = 20
_BEGUN, _ENDED = b'"study_started"', b'"study_finished"'


class Listed(Record):
    """A run or a study in the outputs."""

    name: str
    kind: str
    """``run``, or the kind of the study."""
    state: State
    """``interrupted`` where nobody works and it has not ended."""
    date: str
    """When it was begun, or continued, in local time."""
    num_runs: int
    metric: str | None
    """What chose the best checkpoints."""
    unit: Unit
    score: float | None
    """The best of its completed runs; of a cross-validation the best mean over folds, on the rows that they held out."""
    direction: Direction | None
    seconds: float
    """Wall time of its runs together."""
    num_bytes: int
    path: str


class Listing(Record):
    """What lies in some folders."""

    about: ClassVar[str] = "list of runs and studies"

    entries: tuple[Listed, ...]


_ORDERS: Mapping[str, Callable[[Listed], Any]] = {
    "date": lambda each: -datetime.fromisoformat(each.date).timestamp(),
    "name": lambda each: each.name,
    "state": lambda each: get_args(State).index(each.state),
    "score": lambda each: (
        ("\uffff", math.inf)
        if each.metric is None or each.score is None
        else (each.metric, Metric(each.metric, each.direction).cost(each.score))
    ),
    "seconds": lambda each: -each.seconds,
    "size": lambda each: -each.num_bytes,
}
"""What comes first, by what the list is sorted by."""


def listing(folders: Sequence[Path], *, state: str | None = None, sort: str = "date") -> Listing:
    """List the runs and studies in folders; of a folder that is a study itself, its runs.

    Folders are looked through at any depth. The newest, the best (metric by metric) and the largest come first.

    Raises:
        UserError: A folder is not there, or there is no such state or order.
    """
    for value, names, option in ((state, get_args(State), "--state"), (sort, tuple(_ORDERS), "--sort")):
        if value is not None and value not in names:
            raise UserError(
                f"there is no '{value}'", where=option, expected=", ".join(names), hint=nearest(value, names)
            )
    paths = dict.fromkeys(path for folder in folders for path in entries_in(folder))
    found = [listed(path) for path in paths]
    kept = [each for each in found if state in (None, each.state)]
    return Listing(entries=tuple(sorted(kept, key=lambda each: (_ORDERS[sort](each), each.path))))


def listing_table(found: Listing) -> FittedTable:
    """Return runs and studies, a line each."""
    entries = found.entries
    columns = [
        column("path", (shown_path(each.path) for each in entries), is_text=True, shortest=_SHORTEST_PATH),
        column("kind", (each.kind for each in entries), rank=4, is_text=True),
        column("state", (each.state for each in entries), is_text=True, styles=STATE_STYLES),
        column("date", (each.date for each in entries), rank=2),
        column("runs", (each.num_runs for each in entries), rank=5),
        column("best", map(_score, entries), rank=1, is_text=True),
        column("time", (duration(each.seconds) for each in entries), rank=3),
        column("size", (in_bytes(each.num_bytes) for each in entries), rank=3),
    ]
    size = in_bytes(sum(each.num_bytes for each in entries))
    notes = () if entries else ("dure runs DIR looks in another folder",)
    what = "1 run or study" if len(entries) == 1 else f"{len(entries):,} runs and studies"
    return FittedTable(columns, f"{what}, {size}", notes, elsewhere="--json")


def _score(each: Listed) -> str:
    if each.metric is None or each.score is None:
        return NOTHING
    phrase = metric_phrase(Metric(each.metric, each.direction, each.unit), each.score)
    if each.kind == _FOLDS:
        return f"{phrase}, mean of folds"
    return phrase if each.num_runs == 1 else f"{phrase}, best of {each.num_runs}"


def entries_in(folder: Path) -> Iterator[Path]:
    """Give the folders of the runs and studies in a folder, or those of the runs of a study.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            "there is no such folder", where=str(folder), expected="a folder of outputs, a study or a run"
        )
    if (folder / STUDY_FILE).is_file():
        yield from (run.path for run in runs_in(folder) if _is_run(run))
        return
    for place, names, files in os.walk(folder):
        if STUDY_FILE in files or (RUN_RECORD in files and _is_run(RunFolder(Path(place)))):
            yield Path(place)
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))


def listed(path: Path) -> Listed:
    """Return how the run or study of a folder stands."""
    is_study = (path / STUDY_FILE).is_file()
    runs = [run for run in runs_in(path) if _is_run(run)]
    results = [json_or_none(run.result) or {} for run in runs]
    record = path / (STUDY_FILE if is_study else RUN_RECORD)
    kind = _kind(record) if is_study else "run"
    metric, score = _best(results)
    if kind == _FOLDS and metric is not None:
        score = _best_mean(runs, results, metric)
    single = results[0] if results else {}
    return Listed(
        name=path.name if is_study or not single.get("name") else str(single["name"]),
        kind=kind,
        state=_state(path, is_study, single),
        date=_begun(path, record).isoformat(sep=" ", timespec="minutes"),
        num_runs=len(runs),
        metric=None if metric is None else metric.name,
        unit="number" if metric is None else metric.unit,
        score=score,
        direction=None if metric is None else metric.direction,
        seconds=math.fsum(number(result.get("seconds")) or 0.0 for result in results),
        num_bytes=bytes_in(path),
        path=str(path),
    )


def _begun(path: Path, record: Path) -> datetime:
    """Return when it began, in local time: by its first event, since a copy of the folder has the copy's times."""
    try:
        with (path / EVENTS_FILE).open("rb") as stream:
            at = datetime.fromisoformat(json.loads(stream.readline(_LONGEST_EVENT))["at"])
        return at.astimezone().replace(tzinfo=None)
    except (OSError, ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(record.stat().st_mtime)


def _is_run(run: RunFolder) -> bool:
    """Return whether a run was begun there; a study keeps experiments in folders around its runs."""
    return run.environment.is_file() or (
        run.result.is_file() and not any(run.path.glob("*/environment.json"))
    )


def _best(results: Sequence[Mapping[str, Any]]) -> tuple[Metric | None, float | None]:
    """Return the best score of completed runs, by what chose the checkpoints of the first of them."""
    completed = [
        result for result in results if result.get("state") == "completed" and result.get("best_metric")
    ]
    if not completed:
        return None, None
    metric = recorded({"definitions": completed[0].get("definitions")}, str(completed[0]["best_metric"]))
    if metric.direction is None:
        return None, None
    scores = (
        number(result.get("metrics", {}).get(metric.name))
        for result in completed
        if result["best_metric"] == metric.name
    )
    return metric, min(scores, key=metric.cost, default=None)


def _best_mean(
    runs: Sequence[RunFolder], results: Sequence[Mapping[str, Any]], metric: Metric
) -> float | None:
    """Return the best mean over the folds of an experiment, which lie in one folder, by the rows that they held out."""
    held_out: dict[Path, list[float]] = {}
    for run, result in zip(runs, results, strict=True):
        score = number(result.get("metrics", {}).get(under(metric.name, TEST)))
        if score is not None and result.get("state") == "completed":
            held_out.setdefault(run.path.parent, []).append(score)
    return min((math.fsum(each) / len(each) for each in held_out.values()), key=metric.cost, default=None)


def _state(path: Path, is_study: bool, result: Mapping[str, Any]) -> State:
    if any(map(holder_of, (path, *path.parents[:2]))):
        return "running"
    said = _end_of_study(path) if is_study else result.get("state")
    known: tuple[State, ...] = get_args(State)
    return next((state for state in known if state == said), "interrupted")


def _end_of_study(path: Path) -> str | None:
    """Return how the last session of a study ended, by its stream; None while it has not."""
    try:
        stream = (path / EVENTS_FILE).read_bytes()
    except OSError:
        return None
    if _BEGUN not in stream:
        return _end_by_results(path)
    place = stream.rfind(_ENDED)
    if place < 0 or _BEGUN in stream[place:]:
        return None
    line = stream[stream.rfind(b"\n", 0, place) + 1 :].partition(b"\n")[0]
    try:
        return str(json.loads(line)["state"])
    except (ValueError, KeyError):
        return None


def _end_by_results(path: Path) -> str | None:
    """Return how a study of one run ended, which writes its results last; None where its run went on since then."""
    from dure.studies.study import stored_kind

    try:
        results = path / stored_kind(path).kind_of().results_file
        if results.stat().st_mtime < (path / EVENTS_FILE).stat().st_mtime:
            return None
    except (UserError, OSError):
        return None
    return str((json_or_none(results) or {}).get("state"))


def _kind(record: Path) -> str:
    found = _KIND.search(record.read_text(encoding="utf-8", errors="replace"))
    return "study" if found is None else found[1]
