"""A study in storage: everything of it arrives, and another machine that has nothing of it goes on."""

from __future__ import annotations

import shutil

import pytest

from dure.config.schema import Experiment
from dure.config.storage import StorageConfig
from dure.events import StudyListener
from dure.files import read_json_lines
from dure.outputs import pull
from dure.runs.checkpoints import STATE_FILE, checkpoints
from dure.runs.folder import RunFolder
from dure.storage.remote import Storage
from dure.studies.batch.plan import BatchStudy
from dure.studies.life_cycle import run_experiments


class _Notes(StudyListener):
    def __init__(self):
        self.steps, self.restored = {}, set()

    def started(self, name, path, trials):
        self.restored = {trial.name for trial in trials if trial.restored}

    def changed(self, trial):
        if trial.state == "running" and trial.step:
            self.steps.setdefault(trial.name, []).append(trial.step)


def _named(experiment: Experiment, name: str) -> Experiment:
    tree = experiment.model_dump(mode="json")
    tree["experiment"]["name"] = name
    return Experiment.model_validate(tree)


def _losses(path):
    return [
        (each["step"], each.get("loss"), each.get("eval_loss"))
        for each in read_json_lines(RunFolder(path).metrics)
    ]


@pytest.mark.slow
def test_a_batch_goes_on_from_storage_on_a_machine_that_has_nothing_of_it(tiny, cpu, tmp_path, monkeypatch):
    far = tmp_path / "far"
    profile = cpu.model_copy(
        update={"storage": StorageConfig(url=f"file://{far}"), "max_concurrent_trials": 1}
    )
    first = tiny("bert", "full")
    experiments = [_named(first, "first"), _named(first, "second")]
    study = BatchStudy(kind="batch", name="two", experiments=("first", "second"), metrics=("eval_loss",))

    def session(machine, *, resume=True):
        notes = _Notes()
        path = tmp_path / machine / "outputs" / "two" / "1"
        if resume:
            pull(profile, path)
        return (
            run_experiments(study, experiments, profile=profile, path=path, resume=resume, follower=notes),
            notes,
            path,
        )

    summary, _, here = session("a", resume=False)
    assert summary.state == "completed"
    copy = Storage(f"file://{far}/two/1").sizes()
    there = {
        path.relative_to(here).as_posix()
        for path in here.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(here).parts)
    }
    assert there - copy.keys() == set()
    assert {"experiment_summary.txt", "experiment_summary.json", "first/result.json"} <= copy.keys()
    assert "second/final_model/manifest.json" in copy
    whole = {name: _losses(here / name) for name in ("first", "second")}

    # All is finished: machine B has it all, and nothing runs.
    shutil.rmtree(tmp_path / "a")
    summary, notes, here = session("b")
    assert notes.restored == {"first", "second"}
    assert not notes.steps
    assert summary.state == "completed"
    assert {name: _losses(here / name) for name in whole} == whole
    assert (here / "second" / "final_model" / "manifest.json").is_file()

    # As if machine A had been lost while the second trial had its first checkpoint behind it.
    steps = sorted(checkpoints(here / "second"))
    shutil.rmtree(tmp_path / "b")
    lost = far / "two" / "1" / "second"
    for each in ("result.json", f"checkpoint-{steps[-1]}", "final_model"):
        shutil.rmtree(lost / each) if (lost / each).is_dir() else (lost / each).unlink()
    before = max(checkpoints(lost))
    assert before < steps[-1]
    summary, notes, here = session("c")
    assert summary.state == "completed"
    assert notes.restored == {"first"}
    assert notes.steps.keys() == {"second"}
    assert min(notes.steps["second"]) == before + 1
    assert _losses(here / "second") == whole["second"]
    assert f"second/checkpoint-{steps[-1]}/{STATE_FILE}" in Storage(f"file://{far}/two/1").sizes()
