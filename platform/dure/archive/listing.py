"""What lies in the outputs: runs and studies, each with how it stands, its best score and what it takes."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from dure.errors import UserError, nearest
from dure.files import json_or_none
from dure.metrics.metric import Direction, Metric, Unit, recorded
from dure.reporting.figures import number
from dure.runs.budget import bytes_in, runs_in
from dure.runs.folder import EVENTS_FILE, RUN_RECORD, STUDY_FILE, RunFolder
from dure.runs.lock import holder_of
from dure.studies.results import Record

SortKey = Literal["date", "name", "state", "score", "seconds", "size"]
State = Literal["running", "completed", "stopped", "diverged", "failed", "interrupted"]

_KIND = re.compile(r"^kind:\s*(\w+)", re.MULTILINE)
_LONGEST_EVENT = 1 << 16
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
    """The best of its completed runs."""
    direction: Direction | None
    seconds: float
    """Wall time of its runs together."""
    num_bytes: int
    path: str


class Listing(Record):
    """What lies in some folders."""

    about: ClassVar[str] = "list of runs and studies"

    entries: tuple[Listed, ...]


def listing(folders: Sequence[Path], *, state: str | None = None, sort: str = "date") -> Listing:
    """List the runs and studies in folders; of a folder that is a study itself, its runs.

    Folders are looked through at any depth. The newest, the best (metric by metric) and the largest come first.

    Raises:
        UserError: A folder is not there, or there is no such state or order.
    """
    for value, kind, option in ((state, State, "--state"), (sort, SortKey, "--sort")):
        names = get_args(kind)
        if value is not None and value not in names:
            raise UserError(
                f"there is no '{value}'", where=option, expected=", ".join(names), hint=nearest(value, names)
            )
    paths = dict.fromkeys(path for folder in folders for path in entries_in(folder))
    found = [listed(path) for path in paths]
    kept = [each for each in found if state in (None, each.state)]
    return Listing(entries=tuple(sorted(kept, key=lambda each: _order(each, sort))))


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
    metric, score = _best(results)
    record = path / (STUDY_FILE if is_study else RUN_RECORD)
    single = results[0] if results else {}
    return Listed(
        name=path.name if is_study or not single.get("name") else str(single["name"]),
        kind=_kind(record) if is_study else "run",
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


def _order(each: Listed, sort: str) -> tuple[Any, ...]:
    match sort:
        case "name":
            return (each.name, each.path)
        case "state":
            return (get_args(State).index(each.state), each.path)
        case "seconds":
            return (-each.seconds, each.path)
        case "size":
            return (-each.num_bytes, each.path)
        case "score":
            if each.metric is None or each.score is None:
                return ("\uffff", math.inf, each.path)
            return (each.metric, Metric(each.metric, each.direction).cost(each.score), each.path)
    return (-datetime.fromisoformat(each.date).timestamp(), each.path)
