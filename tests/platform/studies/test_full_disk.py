"""What a study's driver and its trials must write on a full disk waits for room, and loses nothing meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle

from dure.errors import RunError
from dure.events import StudyListener
from dure.runs.disk import DiskRoom
from dure.runs.folder import RunFolder
from dure.runs.restarts import Restarts
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.studies.board import Board
from dure.studies.trial import TrialRequests, settled
from tests.platform.small_disk import fill


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(DiskRoom, "look_seconds", 0.1)


def filled(path: Path) -> None:
    """Fill the disk to the last byte, and free it in a moment."""
    threading.Timer(0.4, fill(path, 0).unlink).start()


def test_a_trial_that_fails_while_the_disk_is_full_leaves_its_result(small_disk, cpu):
    path = small_disk(2) / "study"
    trial = path / "one"
    trial.mkdir(parents=True)

    def fails(config, requests):
        filled(path.parent)
        raise ValueError("it was wrong")

    settled({"trial": "one"}, TrialRequests("study", cpu, path), fails)
    result = RunFolder(trial).read_result()
    assert (result.state, result.error) == ("failed", "ValueError: it was wrong")


def died_trial(name: str, folder: Path, said: str = "its process was killed") -> SimpleNamespace:
    """A trial as Tune shows it whose process died."""
    file = folder / "error.pkl"
    file.write_bytes(cloudpickle.dumps(RuntimeError(said)))
    return SimpleNamespace(config={"trial": name}, pickled_error_file=str(file), last_result=None)


def test_deaths_of_trials_on_a_full_disk_are_counted_and_their_results_written(
    small_disk, cpu, tiny, tmp_path
):
    path = small_disk(2) / "study"
    experiment = tiny("t5", "lora")
    strategy = Batch(BatchStudy(kind="batch", name="study", experiments=(experiment.name,)), [experiment])
    board = Board(strategy, cpu, path, StudyListener())
    folder = board.statuses()[0].path
    folder.mkdir(parents=True)
    trial = died_trial(experiment.name, tmp_path)
    filled(path.parent)
    board.on_trial_recover(1, [trial], trial)
    assert Restarts(folder, board.session).num_counted == 1
    filled(path.parent)
    board.on_trial_error(1, [trial], trial)
    assert Restarts(folder, board.session).num_counted == 2
    assert RunFolder(folder).read_result().state == "failed"
    assert board.statuses()[0].state == "failed"


def test_a_disk_that_stays_full_ends_the_study_with_what_to_do(small_disk, cpu, tiny, tmp_path):
    path = small_disk(2) / "study"
    experiment = tiny("t5", "lora")
    strategy = Batch(BatchStudy(kind="batch", name="study", experiments=(experiment.name,)), [experiment])
    impatient = cpu.with_({"storage.pause_minutes": 0.005})
    board = Board(strategy, impatient, path, StudyListener())
    board.statuses()[0].path.mkdir(parents=True)
    trial = died_trial(experiment.name, tmp_path)
    fill(path.parent, 0)
    with pytest.raises(RunError, match="--resume goes on"):
        board.on_trial_recover(1, [trial], trial)
