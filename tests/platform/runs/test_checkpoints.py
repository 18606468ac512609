"""Checkpoints: what counts as whole, and what retention may delete."""

from __future__ import annotations

import errno
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.metrics.metric import Metric
from dure.runs import checkpoints


def _make(folder, *steps):
    for step in steps:
        path = folder / checkpoints.checkpoint_name(step)
        path.mkdir(parents=True)
        (path / checkpoints.STATE_FILE).write_text("{}")


def test_checkpoints_are_listed_by_step_and_only_when_whole(tmp_path):
    _make(tmp_path, 100, 20, 3)
    (tmp_path / "checkpoint-200").mkdir()  # no state: never got its name from us
    (tmp_path / ".checkpoint-300.part").mkdir()
    assert list(checkpoints.checkpoints(tmp_path)) == [3, 20, 100]
    assert checkpoints.last_checkpoint(tmp_path).name == "checkpoint-100"
    assert checkpoints.last_checkpoint(tmp_path / "nowhere") is None


@given(
    steps=st.sets(st.integers(1, 60), min_size=1, max_size=12),
    limit=st.integers(1, 5),
    data=st.data(),
)
def test_retention_keeps_the_newest_and_whatever_is_protected(tmp_path_factory, steps, limit, data):
    folder = tmp_path_factory.mktemp("run")
    _make(folder, *steps)
    protected = data.draw(st.sets(st.sampled_from(sorted(steps)), max_size=4))
    checkpoints.retain(folder, limit, protected)
    left = set(checkpoints.checkpoints(folder))
    deleted = sorted(steps - left)
    assert left <= steps
    assert max(steps) in left
    assert protected <= left
    assert len(left) <= max(limit, len(protected | {max(steps)}))
    assert not list(folder.glob(".*"))
    # Of those that may go, the oldest go first.
    free = sorted(steps - protected - {max(steps)})
    assert deleted == free[: len(deleted)]


def test_a_checkpoint_made_for_a_stop_takes_no_place_and_goes_with_the_next(tmp_path):
    _make(tmp_path, 2, 4, 5)
    (tmp_path / "checkpoint-5" / checkpoints.RUNNING_LOSS_FILE).touch()
    checkpoints.retain(tmp_path, 2, [2])
    assert list(checkpoints.checkpoints(tmp_path)) == [2, 4, 5]
    _make(tmp_path, 6)
    checkpoints.retain(tmp_path, 3, [2])
    assert list(checkpoints.checkpoints(tmp_path)) == [2, 4, 6]


def test_what_a_kill_left_half_done_is_removed(tmp_path):
    _make(tmp_path, 5)
    for name in (".checkpoint-10.part", ".checkpoint-1.deleted"):
        (tmp_path / name).mkdir()
    checkpoints.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_a_checkpoint_that_is_read_meanwhile_goes_when_nobody_reads_it(tmp_path, monkeypatch):
    def not_empty(path, *args, **kwargs):
        raise OSError(
            errno.ENOTEMPTY, "Directory not empty", str(path)
        )  # of a file that was open NFS keeps another

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", not_empty)
        for _ in range(2):  # the second time after the run went back
            _make(tmp_path, 1)
            checkpoints.remove_checkpoint(tmp_path / "checkpoint-1")
    assert checkpoints.checkpoints(tmp_path) == {}
    checkpoints.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("direction", "step"), [("min", 4), ("max", 6)])
def test_a_nan_at_the_first_validation_is_never_the_best(direction, step):
    history = [{"step": 2, "eval_x": math.nan}, {"step": 4, "eval_x": 0.2}, {"step": 6, "eval_x": 0.5}]
    metric = Metric("eval_x", direction)
    assert checkpoints.best_of(metric, [2, 4, 6], history) == checkpoints.Best(
        step, history[step // 2 - 1]["eval_x"]
    )
    assert checkpoints.best_of(metric, [2], history) is None
