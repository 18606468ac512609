"""What Tune would take for the death of a trial, or pass over, ends the study in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.errors import RunError, UserError
from dure.events import StudyListener
from dure.files import write_text
from dure.runs.folder import RunFolder, RunResult
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.studies.board import Board
from dure.studies.divergence import DivergedError
from dure.studies.life_cycle import run_experiments
from dure.studies.sweep.optuna_study import JOURNAL
from dure.studies.sweep.plan import plan_sweep
from dure.studies.sweep.strategy import Sweep
from dure.studies.trial import TrialRequests, settled
from tests.platform.removing import remove
from tests.platform.studies.test_full_disk import died_trial


class Removes(StudyListener):
    """Removes a file or a folder once a trial runs; puts a folder in the place of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def changed(self, trial):
        if trial.state == "running":
            if self.path.is_file():
                self.path.rename(self.path.with_suffix(".away"))
                self.path.mkdir()
            elif self.path.name != JOURNAL:
                remove(self.path)


def pretend(request, *, callbacks=()):
    """Leave a result as a training does."""
    score = request.experiment.training.learning_rate
    result = RunResult(request.experiment.name, "completed", {"eval_loss": score, "steps": 1})
    request.folder().write_result(result)
    return result


@pytest.mark.slow
def test_a_search_that_cannot_be_told_ends_the_sweep_and_the_next_session_tells_it(
    tiny, cpu, tmp_path, ray_address
):
    base, path = tiny("bert", "full", best_metric="eval_loss"), tmp_path / "study"
    path.mkdir()
    study = plan_sweep("e", sampler="grid", num_trials=2).named([base]).resolved([base])
    one = {"profile": cpu.with_({"max_concurrent_trials": 1}), "path": path, "address": ray_address}
    journal = path / JOURNAL
    with pytest.raises(RunError, match="cannot keep") as failed:
        run_study(Sweep(study, base, path), follower=Removes(journal), train=pretend, **one)
    assert str(journal) in str(failed.value)
    assert "--resume" in str(failed.value)
    # What was trained is not lost, and no death was made of it.
    done = path / "trial_000" / "result.json"
    assert RunFolder(done.parent).read_result().state == "completed"
    before = done.stat().st_mtime_ns
    journal.rmdir()
    journal.with_suffix(".away").rename(journal)
    record = run_study(Sweep(study, base, path), train=pretend, **one)
    assert record.state == "completed"
    assert [each.state for each in record.experiments] == ["completed"] * 2
    assert done.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_study_whose_folder_vanishes_fails_in_words(tiny, cpu, tmp_path, ray_address):
    experiment, path = tiny("bert", "full"), tmp_path / "study"
    study = BatchStudy(name="gone", experiments=(experiment.name,), metrics=("eval_loss",))
    with pytest.raises(RunError, match="was removed while this command worked in it"):
        run_experiments(
            study, [experiment], profile=cpu, path=path, follower=Removes(path), address=ray_address
        )


def test_a_process_that_dies_behind_its_result_costs_nothing(tiny, cpu, tmp_path):
    experiment, path = tiny("bert", "full"), tmp_path / "study"
    strategy = Batch(
        BatchStudy(name="one", experiments=(experiment.name,), metrics=("eval_loss",)), [experiment]
    )
    board = Board(strategy, cpu, path, StudyListener())
    folder = board.statuses()[0].path
    folder.mkdir(parents=True)
    RunFolder(folder).write_result(RunResult(experiment.name, "completed", {"eval_accuracy": 0.5}))
    trial = died_trial(experiment.name, tmp_path)
    board.on_trial_error(1, [trial], trial)
    assert board.statuses()[0].state == "completed"
    assert RunFolder(folder).read_result().metrics == {"eval_accuracy": 0.5}


def test_what_an_unknown_death_says_is_kept_in_one_line(tiny, cpu, tmp_path):
    experiment = tiny("bert", "full")
    strategy = Batch(
        BatchStudy(name="one", experiments=(experiment.name,), metrics=("eval_loss",)), [experiment]
    )
    board = Board(strategy, cpu, tmp_path / "study", StudyListener())
    folder = board.statuses()[0].path
    folder.mkdir(parents=True)
    trial = died_trial(experiment.name, tmp_path, "lost\n  at a place")
    board.on_trial_error(1, [trial], trial)
    assert "(RuntimeError: lost at a place)" in RunFolder(folder).read_result().error


def test_what_a_callback_raises_ends_the_study_at_the_end_of_the_step(tiny, cpu, tmp_path):
    experiment, path = tiny("bert", "full"), tmp_path / "study"
    strategy = Batch(
        BatchStudy(name="one", experiments=(experiment.name,), metrics=("eval_loss",)), [experiment]
    )
    board = Board(strategy, cpu, path, StudyListener())
    trial = died_trial(experiment.name, tmp_path)
    (tmp_path / "study").write_text("a file where the folder was", encoding="utf-8")
    board.on_trial_complete(1, [trial], trial)
    with pytest.raises(OSError, match="study"):
        board.on_step_end(1, [])


@pytest.mark.parametrize(
    ("raised", "left", "expected"),
    [
        (ValueError("it was wrong"), None, ("failed", "ValueError: it was wrong", {})),
        (UserError("no such column"), None, ("failed", "no such column", {})),
        (RunError("out of memory"), "failed", ("failed", "what its run said", {"steps": 3})),
        (DivergedError("loss is nan"), "failed", ("diverged", "what its run said", {"steps": 3})),
        (DivergedError("loss is nan"), None, ("diverged", "loss is nan", {})),
        (UserError("a broken record"), "broken", ("failed", "a broken record", {})),
    ],
)
def test_what_a_trial_raises_is_its_result_unless_its_run_left_one(cpu, tmp_path, raised, left, expected):
    folder = RunFolder(tmp_path / "one")
    if left == "failed":
        folder.write_result(RunResult("one", "failed", {"steps": 3}, error="what its run said"))
    elif left == "broken":
        write_text(folder.result, "no JSON")

    def run(config, requests):
        raise raised

    settled({"trial": "one"}, TrialRequests("study", cpu, tmp_path), run)
    result = folder.read_result()
    assert (result.state, result.error, result.metrics) == expected
