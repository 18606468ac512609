"""The contract of a strategy as a test that anyone can run.

    from dure.studies.testing import check_strategy

    def test_my_strategy_keeps_the_contract(tmp_path):
        check_strategy(lambda path: MyStrategy(study, experiments, path), tmp_path)

The study runs on a real Ray Tune, but its trials only pretend to train, so that a session takes seconds. A promise
that is broken raises an ``AssertionError`` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

from ray import cloudpickle

from dure.config.loading import dump_yaml, load_profile
from dure.errors import RunError
from dure.events import RunProgress, StudyListener, TrialStatus
from dure.files import append_json_line, read_json_lines, write_text
from dure.metrics.metric import TEST, under
from dure.reporting.columns import plain_text
from dure.runs.folder import RunFolder, RunResult
from dure.signals import STOP_FILE, Interrupted
from dure.studies.adapter import run_study
from dure.studies.board import Board
from dure.studies.strategy import Strategy
from dure.training.run import RunRequest

Make = Callable[[Path], Strategy[Any]]
_NOWHERE = "127.0.0.1:1"
"""No cluster answers there."""
_STEPS = 3
_CALLS = "calls.jsonl"


def check_strategy(make: Make, folder: Path, *, address: str | None = None) -> None:
    """Take a strategy through four sessions in one folder, and its search and scheduler through saving.

    The first session is asked to stop while its first trial runs, in the second a trial fails, the third does the
    rest, and the fourth finds nothing to do and starts no Ray. Trials must begin in their order and train once, also
    those that are paused; the record must be valid at any time, and be what its file holds.

    Args:
        make: Makes the strategy of the study in a folder again, as each session does. It has three trials or more
            whose experiments differ, and stops none of them early but by what they score at their end.
        folder: An empty folder to work in.
        address: Ray cluster to join; every session starts an own one when not given, which takes longer.

    Raises:
        AssertionError: A promise is broken.
    """
    _check_trials(make, folder / "trials")
    _check_saved(make, folder / "saved")
    _check_sessions(make, folder, address)


def _require(is_kept: bool, promise: str) -> None:
    if not is_kept:
        raise AssertionError(promise)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _names(strategy: Strategy[Any]) -> list[str]:
    return [plan.name for plan in strategy.trials()]


def _check_trials(make: Make, path: Path) -> None:
    """Check that trials have names and folders of their own, and that there is a record before any has begun."""
    strategy = make(_made(path))
    plans, names = list(strategy.trials()), _names(strategy)
    _require(len(names) >= 3, f"the check needs three trials, and there are {len(names)}")
    _require(len(set(names)) == len(names), f"two trials bear one name: {names}")
    _require(names == _names(strategy), "trials() does not return the same when it is called again")
    order = list(strategy.longest_first(names))
    _require(sorted(order) == sorted(names), f"longest_first() starts {order}, where {names} are pending")
    folders = [plan.path_in(path) for plan in plans]
    _require(len(set(folders)) == len(folders), f"two trials share a folder: {folders}")
    record = Board(strategy, load_profile("cpu"), path, StudyListener()).results()
    _require(record.state == "interrupted", f"a study that has not begun is {record.state}")
    plain_text(strategy.study.kind_of().report(record))


def _check_saved(make: Make, path: Path) -> None:
    """Check that what proposes trials and what stops them can be pickled, saved and restored."""

    def made() -> dict[str, Any]:
        strategy = make(_made(path))
        strategy.pending(_names(strategy))
        return strategy.tune_settings(1)

    settings, again, file = made(), None, path / "search"
    cloudpickle.dumps(settings)
    if "search_alg" in settings:
        first = settings["search_alg"].suggest("one")
        settings["search_alg"].save(str(file))
        again = made()
        again["search_alg"].restore(str(file))
        proposed = again["search_alg"].suggest("other")
        _require(proposed == first, f"a restored search proposes {proposed}, where {first} was not finished")
    scheduler = settings.get("scheduler")
    if scheduler is None:
        return
    try:
        scheduler.save(str(path / "scheduler"))
    except NotImplementedError:  # it keeps nothing
        return
    other = (again or made())["scheduler"]
    other.restore(str(path / "scheduler"))
    is_same = other.debug_string() == scheduler.debug_string()
    _require(is_same, "a restored scheduler is not what was saved")


@dataclass(frozen=True)
class _Session:
    record: Any
    begun: Sequence[str]
    """Trials in the order in which they began."""
    trained: Sequence[str]
    """Folders in the order in which something trained in them."""


def _check_sessions(make: Make, folder: Path, address: str | None) -> None:
    path = folder / "study"
    names = _names(make(_made(path)))
    stopped = _session(make, path, address, stops=True)
    _require(stopped.record is None, "a stop was asked for, and the study came to its end")
    _require(
        set(stopped.begun) <= {names[0]},
        f"{stopped.begun} began, although a stop was asked for in {names[0]}",
    )

    failing = names[1]
    failed = _session(make, path, address, failing=failing)
    left = [name for name in names if name in failed.begun]
    _require(list(failed.begun) == left, f"trials begin as {failed.begun}, and not in their order {left}")
    _require(
        failing in left and names[2] in left, f"after a failure {left} have begun, and not all of {names}"
    )
    states = {plan.name: _state(plan.path_in(path)) for plan in make(path).trials()}
    _require(states[failing] == "failed", f"a trial failed, and is {states[failing]}")
    lost = [name for name in names if name != failing and states[name] not in ("completed", "stopped")]
    _require(not lost, f"{failing} failed, and with it {lost}")
    _require(failed.record.state == "failed", f"a trial failed, and the study is {failed.record.state}")

    rest = _session(make, path, address)
    _require(rest.record.state == "completed", f"nothing is left to do, and the study is {rest.record.state}")
    trained = [*stopped.trained, *failed.trained, *rest.trained]
    twice = sorted({each for each in trained if trained.count(each) > 1})
    _require(not twice, f"trained a second time: {', '.join(twice)}")

    nothing = _session(make, path, _NOWHERE)
    _require(not nothing.trained, f"nothing is left to do, and {nothing.trained} trained")
    _require(nothing.record.state == "completed", "a study that is completed does not stay so")
    _require(
        nothing.record.started == failed.record.started and nothing.record.seconds >= rest.record.seconds,
        "the record has the time of its last session, and not of all",
    )


def _session(
    make: Make, path: Path, address: str | None, *, failing: str = "", stops: bool = False
) -> _Session:
    """Run what is left with one trial at a time; the record is None after a stop."""
    begun: list[str] = []
    profile = load_profile("cpu").with_({"max_concurrent_trials": 1})
    calls = path.parent / _CALLS
    before = len(read_json_lines(calls))
    strategy, record = make(path), None
    train = partial(_pretend, study=path, calls=calls, failing=failing, stops=stops)
    try:
        record = run_study(
            strategy, profile=profile, path=path, follower=_Begun(begun), address=address, train=train
        )
    except Interrupted:
        _require(stops, "the study stopped, and nobody had asked for it")
    else:
        kind = strategy.study.kind_of()
        kept = kind.results.read(path / kind.results_file)
        _require(kept == record, f"{kind.results_file} does not hold what the study came to")
        plain_text(kind.report(record))
    trained = [call["folder"] for call in read_json_lines(calls)[before:]]
    return _Session(record, begun, trained)


def _state(folder: Path) -> str:
    result = RunFolder(folder).read_result()
    return "pending" if result is None else result.state


class _Begun(StudyListener):
    def __init__(self, names: list[str]) -> None:
        self.names = names

    def changed(self, trial: TrialStatus) -> None:
        """Note it."""
        if trial.state == "running" and trial.name not in self.names:
            self.names.append(trial.name)


def _pretend(
    request: RunRequest, *, study: Path, calls: Path, failing: str, stops: bool, callbacks: Sequence[Any] = ()
) -> RunResult:
    """Leave what a training leaves that strategies look at; its score depends on its experiment alone."""
    place = request.path.relative_to(study).as_posix()
    if failing and failing in (request.experiment.name, *request.path.relative_to(study).parts):
        raise RunError("this trial was to fail")
    experiment = request.experiment
    if stops:
        (study / STOP_FILE).touch()
    score = crc32(experiment.model_dump_json().encode()) / 2**32
    metric = experiment.training.best_metric
    scores = {"eval_loss": 1 - score, "test_loss": 1 - score, metric: score}
    scores[under(metric, TEST)] = score
    folder = request.folder()
    write_text(folder.experiment, dump_yaml(experiment))
    for step in range(1, _STEPS + 1):
        progress = RunProgress("eval", step, _STEPS, step / _STEPS, 0.1 * step, scores)
        append_json_line(folder.metrics, {"kind": "eval", "step": step, "epoch": step / _STEPS, **scores})
        for listener in request.listeners:
            listener.progressed(progress)
    for file in (folder.checkpoints / "epoch_1.pt", folder.final_model / "model"):
        write_text(file, "nothing was trained")
    figures = {"steps": _STEPS, "best_step": _STEPS, "peak_memory_mb": 1.0, "unreleased_memory_mb": 0.0}
    rows = {"num_train_rows": 10, "num_rows_in_all": 10, "num_dev_rows": 10, "cpu_percent": 100.0}
    result = RunResult(experiment.name, "completed", {**scores, **figures, **rows}, seconds=0.1)
    folder.write_result(result)
    append_json_line(calls, {"folder": place})
    return result
