"""A batch on real Ray: a failure stops nobody, processes are reused, a second session only does the rest."""

from __future__ import annotations

import json
import threading

import pytest

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import RunListener, StudyListener
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.studies.adapter import run_study
from dure.studies.batch.driver import BatchKind
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.planning import only_of
from dure.studies.batch.strategy import Batch


class _Notes(StudyListener):
    def __init__(self):
        self.states, self.told_lines, self.summary = [], [], None
        # As listeners have; Tune writes its callbacks to disk, and a lock cannot be.
        self.lock = threading.Lock()

    def changed(self, trial):
        if (trial.name, trial.state) not in self.states:
            self.states.append((trial.name, trial.state))

    def notified(self, message):
        self.told_lines.append(message)

    def finished(self, summary):
        self.summary = summary


class _ProcessNote(RunListener):
    """Leaves the number of the process that trained in the run's folder."""

    def started(self, start, notify):
        import os

        (start.path / "pid").write_text(str(os.getpid()))


def _named(experiment: Experiment, name: str, **lora) -> Experiment:
    tree = experiment.model_dump(mode="json")
    tree["experiment"]["name"] = name
    tree["lora"] |= lora
    return Experiment.model_validate(tree)


@pytest.fixture(scope="module")
def study():
    return BatchStudy(kind="batch", name="three", experiments=("first", "broken", "last"))


def test_a_failure_stops_nobody_and_the_next_session_only_does_the_rest(
    tiny, cpu, study, tmp_path, ray_address
):
    first = tiny("t5", "lora")
    experiments = [
        _named(first, "first"),
        _named(first, "broken", targets=["nothing_like_it"]),
        _named(first, "last"),
    ]
    notes = _Notes()
    one_at_a_time = cpu.model_copy(update={"max_concurrent_trials": 1})
    summary = run_study(
        Batch(study, experiments),
        profile=one_at_a_time,
        path=tmp_path,
        follower=notes,
        listeners=lambda experiment: [_ProcessNote()],
        address=ray_address,
    )
    states = {entry.name: entry.state for entry in summary.experiments}
    assert states == {"first": "completed", "broken": "failed", "last": "completed"}
    assert summary.state == "failed"
    assert summary.best in ("first", "last")
    assert "nothing_like_it" in summary.experiments[1].error
    assert json.loads((tmp_path / BatchKind.results_file).read_text(encoding="utf-8")) == summary.as_json()
    # One process took all three trials, and each left nothing behind in it.
    assert (tmp_path / "first" / "pid").read_text() == (tmp_path / "last" / "pid").read_text()
    assert all(e.metrics.get("unreleased_memory_mb", 0) < 1 for e in summary.experiments)
    # The same experiment in a fresh and in a used process: the same numbers.
    scores = [summary.experiments[place].metrics["eval_loss"] for place in (0, 2)]
    assert scores[0] == scores[1]
    assert ("last", "running") in notes.states
    assert notes.summary == summary.as_json()

    before = (tmp_path / "first" / "result.json").stat().st_mtime_ns
    experiments[1] = _named(first, "broken")
    again = _Notes()
    summary = run_study(
        Batch(study, experiments),
        profile=one_at_a_time,
        path=tmp_path,
        follower=again,
        address=ray_address,
    )
    assert summary.state == "completed"
    assert (tmp_path / "first" / "result.json").stat().st_mtime_ns == before
    assert {name for name, _ in again.states} == {"broken"}


def test_nothing_left_to_do_starts_no_ray(tiny, cpu, study, tmp_path):
    import ray

    done = _named(tiny("t5", "lora"), "done")
    from dure.runs.folder import RunResult

    (tmp_path / "done").mkdir()
    RunFolder(tmp_path / "done").write_result(RunResult("done", "completed", {"eval_rouge1": 0.5}))
    one = BatchStudy(kind="batch", name="one", experiments=("done",))
    summary = run_study(Batch(one, [done]), profile=cpu, path=tmp_path)
    assert summary.state == "completed"
    assert summary.best == "done"
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_trial_of_two_workers_reports_through_tune(tiny, cpu, tmp_path):
    experiment = _named(tiny("t5", "lora"), "pair")
    notes = _Notes()
    one = BatchStudy(kind="batch", name="one", experiments=("pair",))
    summary = run_study(
        Batch(one, [experiment]),
        profile=cpu.model_copy(update={"num_workers": 2}),
        path=tmp_path,
        follower=notes,
    )
    assert summary.state == "completed", summary
    assert summary.experiments[0].metrics["steps"] == 6
    assert any("rows" in line for line in notes.told_lines)
    assert [r["step"] for r in read_json_lines(RunFolder(tmp_path / "pair").metrics) if r["kind"] == "train"] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip


def test_only_takes_numbers_and_names():
    names = ["a", "b", "c"]
    assert only_of(names, "3,a") == ["a", "c"]
    for wrong in ("0", "4", "x", ""):
        with pytest.raises(UserError, match="--only"):
            only_of(names, wrong)


def test_two_experiments_of_one_name_are_refused(tiny, study):
    with pytest.raises(UserError, match="two experiments"):
        study.resolved([tiny("t5"), tiny("t5")])
