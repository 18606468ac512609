"""The weights of every epoch, and which of them is the best."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest
import torch

from dure.training.snapshots import BEST, EpochSnapshots, epochs_of, mark_best


def at(epoch: float, step: int) -> SimpleNamespace:
    return SimpleNamespace(epoch=epoch, global_step=step)


@pytest.fixture
def model():
    return torch.nn.Linear(3, 2)


def test_every_epoch_leaves_its_weights_with_the_step_that_they_are_of(model, tmp_path):
    snapshots = EpochSnapshots(tmp_path, is_main=True)
    for epoch in range(1, 12):
        torch.nn.init.constant_(model.weight, epoch)
        # The trainer's own count of epochs may be off by a rounding.
        snapshots.on_epoch_end(None, at(epoch - 1e-9, 5 * epoch), None, model=model)
    assert list(epochs_of(tmp_path)) == list(range(1, 12))
    for epoch, path in epochs_of(tmp_path).items():
        assert path.name == f"epoch_{epoch}.pt"
        kept = torch.load(path, weights_only=True)
        assert (kept["epoch"], kept["step"]) == (epoch, 5 * epoch)
        assert torch.all(kept["model_state"]["weight"] == epoch)


def test_other_workers_write_nothing(model, tmp_path):
    snapshots = EpochSnapshots(tmp_path, is_main=False)
    snapshots.on_train_begin(None, at(0, 0), None)
    snapshots.on_epoch_end(None, at(1, 1), None, model=model)
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_half_written_is_removed_when_training_begins_again(model, tmp_path):
    (tmp_path / ".epoch_2.pt.0a1b2c3d.part").write_bytes(b"half")
    (tmp_path / f".{BEST}.0a1b2c3d.part").write_bytes(b"half")
    (tmp_path / "epoch_1.pt").write_bytes(b"whole")
    (tmp_path / ".checkpoint-5.part").mkdir()
    EpochSnapshots(tmp_path, is_main=True).on_train_begin(None, at(1, 1), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".checkpoint-5.part", "epoch_1.pt"]


def test_only_files_of_epochs_count(tmp_path):
    for name in ("epoch_2.pt", BEST, "epoch_x.pt", ".epoch_3.pt.1234.part", "my_epoch_4.pt"):
        (tmp_path / name).write_bytes(b"")
    assert list(epochs_of(tmp_path)) == [2]
    assert epochs_of(tmp_path / "nowhere") == {}


def test_the_best_takes_no_room_of_its_own(tmp_path):
    for epoch in (1, 2):
        (tmp_path / f"epoch_{epoch}.pt").write_bytes(str(epoch).encode())
    for epoch in (2, 1):  # the second time there is a best one already
        assert mark_best(tmp_path, epoch) == tmp_path / BEST
        assert (tmp_path / BEST).samefile(tmp_path / f"epoch_{epoch}.pt")
    (tmp_path / "epoch_1.pt").unlink()
    assert (tmp_path / BEST).read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, "epoch_2.pt"]


def test_where_files_cannot_be_linked_the_best_is_a_copy(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "epoch_3.pt").write_bytes(b"three")
    mark_best(tmp_path, 3)
    assert (tmp_path / BEST).read_bytes() == b"three"
    assert not (tmp_path / BEST).samefile(tmp_path / "epoch_3.pt")
