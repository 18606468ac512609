"""What a study's disk budget may delete: only what is no longer needed, in its order, and no more than it takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.config.storage import StorageConfig
from dure.errors import RunError
from dure.runs import checkpoints
from dure.runs.budget import Kept, bytes_in, collect, plan, record_needed, study_of, survey
from dure.runs.disk import RESERVE_BYTES, DiskRoom
from dure.runs.folder import RunFolder, RunResult, StageFolder, UnifiedFolder
from dure.runs.manifest import write_manifest

things = st.builds(
    Kept,
    path=st.integers(0, 10**6).map(lambda number: Path(str(number))),
    kind=st.sampled_from(["checkpoint", "epoch"]),
    number=st.integers(1, 50),
    size=st.integers(0, 100),
    is_best=st.booleans(),
    is_last=st.booleans(),
    is_needed=st.booleans(),
    run_is_finished=st.booleans(),
    model=st.none() | st.just(Path("final_model")),
)


@given(kept=st.lists(things, max_size=20, unique_by=lambda each: each.path), num_bytes=st.integers(0, 1500))
def test_what_is_protected_never_goes_and_no_more_goes_than_it_takes(kept, num_bytes):
    chosen = plan(kept, num_bytes)
    for deletion in chosen:
        each = deletion[0]
        assert not each.is_needed
        holds_what_counts = each.is_best or each.is_last
        assert not holds_what_counts or (
            each.kind == "checkpoint" and each.run_is_finished and each.model is not None
        )
        assert deletion[1]
    sizes = [deletion[0].size for deletion in chosen]
    assert len({deletion[0].path for deletion in chosen}) == len(chosen)
    if chosen:
        assert sum(sizes[:-1]) < num_bytes
    turns = [deletion[0].turn()[0] for deletion in chosen]
    assert turns == sorted(turns)
    left = [each.turn() for each in kept if each not in [deletion[0] for deletion in chosen]]
    if sum(sizes) < num_bytes:
        assert not any(left), "the budget is missed only when nothing more may go"
    elif chosen:
        assert all(turn is None or turn[0] >= turns[-1] for turn in left)


def _run(path, *steps, best, state="completed", model=True, layout=RunFolder):
    """Make a run as it lies on the disk, with checkpoints of 1,000 bytes and some."""
    folder = layout(path)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    folder.experiment.write_text("family: x\n")
    for step in steps:
        checkpoint = folder.checkpoints / checkpoints.checkpoint_name(step)
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_bytes(os.urandom(1000))
        known = {"global_step": step, "best_global_step": best, "epoch": step / 2}
        (checkpoint / checkpoints.STATE_FILE).write_text(json.dumps(known))
    if model:
        folder.final_model.mkdir()
        (folder.final_model / "model.safetensors").write_bytes(os.urandom(500))
        write_manifest(folder.final_model)
    if state:
        folder.write_result(RunResult("run", state))
    return folder


def _names(study):
    return sorted(str(each.path.relative_to(study)) for each in survey(study))


def test_checkpoints_go_run_by_run_in_their_order_and_the_best_weights_stay(tmp_path):
    (tmp_path / "study.yaml").write_text("kind: batch\n")
    _run(tmp_path / "done", 2, 4, 6, best=4)
    _run(tmp_path / "running", 2, 4, 6, best=2, state=None, model=False)
    _run(tmp_path / "failed", 2, 4, best=2, state="failed", model=False)
    _run(tmp_path / "lost", 2, 4, best=2, model=False)
    gone, told = [], []
    for _ in range(6):
        before = _names(tmp_path)
        if not collect(tmp_path, 1, told.append):
            break
        gone += sorted(set(before) - set(_names(tmp_path)))
    assert gone == [
        "done/checkpoint-2", "done/checkpoint-4", "done/checkpoint-6", "running/checkpoint-4",
    ]  # fmt: skip
    assert collect(tmp_path, 10**6, told.append) == 0
    assert len(told) == 4
    assert (tmp_path / "done" / "final_model" / "model.safetensors").is_file()
    assert _names(tmp_path / "failed") == ["checkpoint-2", "checkpoint-4"]


def test_a_finished_runs_checkpoints_stay_when_its_model_is_broken_or_of_unknown_wholeness(tmp_path):
    broken = _run(tmp_path / "broken", 2, 4, best=2)
    content = (broken.final_model / "model.safetensors").read_bytes()
    (broken.final_model / "model.safetensors").write_bytes(content[:-1] + b"?")
    older = _run(tmp_path / "older", 2, 4, best=2)
    (older.final_model / "manifest.json").unlink()
    assert collect(tmp_path, 10**6, print) == 0
    assert len(_names(tmp_path)) == 4


def test_a_run_whose_best_is_not_known_keeps_all(tmp_path):
    folder = _run(tmp_path, 2, 4, 6, best=4, state=None, model=False, layout=UnifiedFolder)
    _epochs(folder, 1, 2, 3)
    record_needed(folder.checkpoints, set())
    (folder.checkpoints / "checkpoint-6" / checkpoints.STATE_FILE).write_text("{}")
    assert collect(tmp_path, 10**6, print) == 0


def _epochs(folder, *numbers):
    for number in numbers:
        (folder.checkpoints / f"checkpoint_epoch_{number:04d}_lr_0.1.pt").write_bytes(os.urandom(300))


def test_epochs_that_may_be_sweet_spots_stay_and_so_do_all_while_that_is_not_known(tmp_path):
    folder = _run(tmp_path, 2, 12, best=4, layout=UnifiedFolder)
    _epochs(folder, 1, 2, 3, 4, 5, 6)
    collect(tmp_path, 10**6, print)
    assert [each.kind for each in survey(tmp_path)] == ["epoch"] * 6
    record_needed(folder.checkpoints, {3, 5})
    collect(tmp_path, 10**6, print)
    assert {each.number for each in survey(tmp_path)} == {3, 5, 6}


def test_the_best_epoch_of_a_run_that_goes_on_stays(tmp_path):
    folder = _run(tmp_path, 2, 12, best=4, state=None, model=False, layout=UnifiedFolder)
    _epochs(folder, 1, 2, 3, 6)
    record_needed(folder.checkpoints, {3})
    collect(tmp_path, 10**6, print)
    assert {each.number for each in survey(tmp_path) if each.kind == "epoch"} == {2, 3, 6}


def test_the_weights_that_the_next_stage_begins_with_stay(tmp_path):
    folder = _run(tmp_path / "stage_1_10pct", best=None, model=False, layout=StageFolder)
    for number in (1, 2, 3):
        (folder.checkpoints / f"epoch_{number}.pt").write_bytes(os.urandom(300))
    record_needed(folder.checkpoints, set())
    (folder.checkpoints / "best_model.pt").hardlink_to(folder.checkpoints / "epoch_1.pt")
    folder.training_metrics.write_text("{}")
    assert bytes_in(folder.checkpoints) < 4 * 300, "a file of two names counts once"
    collect(tmp_path, 10**6, print)
    assert sorted(path.name for path in folder.checkpoints.glob("*.pt")) == [
        "best_model.pt", "epoch_1.pt", "epoch_3.pt",
    ]  # fmt: skip


def test_the_budget_is_that_of_the_whole_study(tmp_path):
    (tmp_path / "batch").mkdir()
    run = _run(tmp_path / "batch" / "a", best=None)
    assert study_of(run.path) == run.path
    (tmp_path / "batch" / "study.yaml").write_text("")
    assert study_of(run.path) == tmp_path / "batch"
    unified = _run(tmp_path / "unified", best=None)
    sweep = unified.path / "lr_sweep"
    trial = _run(sweep / "trial_0", best=None)
    (sweep / "study.yaml").write_text("")
    assert study_of(trial.path) == unified.path


def test_a_spent_budget_deletes_first_and_pauses_when_nothing_more_may_go(tmp_path, monkeypatch):
    monkeypatch.setattr(DiskRoom, "look_seconds", 0.01)
    (tmp_path / "study.yaml").write_text("kind: batch\n")
    _run(tmp_path / "done", 2, 4, best=4)
    own = _run(tmp_path / "own", 2, best=2, state=None, model=False)
    room_for = bytes_in(tmp_path) + RESERVE_BYTES
    told, written = [], []
    enough = DiskRoom(own.path, StorageConfig(max_gb=(room_for - 1000) / 1e9), notify=told.append)
    enough.write("it", 0, [lambda: written.append(1)])
    assert written == [1]
    assert _names(tmp_path) == ["done/checkpoint-4", "own/checkpoint-2"]
    assert told == [
        "storage.max_gb is reached: 0.0 MB of 1 checkpoints and epochs that are no longer needed were deleted; "
        "the log says which and why"
    ]
    spent = DiskRoom(own.path, StorageConfig(max_gb=1e-6, pause_minutes=0.001), notify=told.append)
    with pytest.raises(RunError, match=r"taken in .* by what may not be deleted"):
        spent.write("it", 0, [lambda: written.append(2)])
    assert written == [1]
    assert told[-1].startswith("paused: ")
    assert _names(tmp_path) == ["own/checkpoint-2"]
