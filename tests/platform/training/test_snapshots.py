"""The weights of every epoch, and which of them is the best."""

from __future__ import annotations

import errno
import os
import re
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from transformers import TrainerControl

from dure.runs.epochs import BEST, epochs_of, mark_best
from dure.runs.folder import StageFolder, UnifiedFolder
from dure.training.snapshots import EpochSnapshots

STEPS = 5
"""Steps of an epoch."""


def at(epoch: float, step: int, *, epochs: int = 11, best: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        epoch=epoch,
        global_step=step,
        max_steps=STEPS * epochs,
        best_global_step=best * STEPS or None,
        log_history=[],
    )


def snapshots_in(folder, *, every=1, limit=30, needed=(), is_main=True):
    return EpochSnapshots(
        folder,
        every=every,
        limit=limit,
        needed=lambda: set(needed),
        is_main=is_main,
        write=lambda what, steps: [step() for step in steps],
    )


class Rate:
    """A schedule that is at 1e-4."""

    def get_last_lr(self):
        return [1e-4]


@pytest.fixture
def model():
    return torch.nn.Linear(3, 2)


def test_every_epoch_leaves_its_weights_with_the_step_that_they_are_of(model, tmp_path):
    snapshots = snapshots_in(StageFolder(tmp_path))
    for epoch in range(1, 12):
        torch.nn.init.constant_(model.weight, epoch)
        # The trainer's own count of epochs may be off by a rounding.
        snapshots.on_epoch_end(
            None, at(epoch - 1e-9, 5 * epoch), TrainerControl(), model=model, lr_scheduler=Rate()
        )
    assert list(epochs_of(tmp_path / "checkpoints")) == list(range(1, 12))
    for epoch, path in epochs_of(tmp_path / "checkpoints").items():
        assert path.name == f"epoch_{epoch}.pt"
        kept = torch.load(path, weights_only=True)
        assert (kept["epoch"], kept["step"]) == (epoch, 5 * epoch)
        assert torch.all(kept["model_state"]["weight"] == epoch)


@pytest.mark.parametrize("epochs", [1.2, 1.4, 1.6])
def test_a_run_that_ends_within_an_epoch_leaves_the_whole_one_before_it_as_it_was(model, tmp_path, epochs):
    # Patience that ends between two validations, or training.max_steps: the trainer ends the epoch all the same.
    folder = UnifiedFolder(tmp_path)
    snapshots = snapshots_in(folder)
    for epoch in (1, epochs):
        torch.nn.init.constant_(model.weight, epoch)
        snapshots.on_epoch_end(
            None, at(epoch, round(STEPS * epoch)), TrainerControl(), model=model, lr_scheduler=Rate()
        )
    first, second = (torch.load(path, weights_only=True) for path in epochs_of(folder.checkpoints).values())
    assert [(each["epoch"], each["step"]) for each in (first, second)] == [(1, 5), (2, round(5 * epochs))]
    assert torch.all(first["model_state"]["weight"] == 1)


def test_other_workers_write_nothing(model, tmp_path):
    snapshots = snapshots_in(StageFolder(tmp_path), is_main=False)
    snapshots.on_train_begin(None, at(0, 0), None)
    snapshots.on_epoch_end(None, at(1, 1), TrainerControl(), model=model, lr_scheduler=Rate())
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_half_written_is_removed_when_training_begins_again(model, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".epoch_2.pt.0a1b2c3d.part").write_bytes(b"half")
    (folder / f".{BEST}.0a1b2c3d.part").write_bytes(b"half")
    (folder / "epoch_1.pt").write_bytes(b"whole")
    (folder / ".checkpoint-5.part").mkdir()
    snapshots_in(StageFolder(tmp_path)).on_train_begin(None, at(1, 1), None)
    assert sorted(path.name for path in folder.iterdir()) == [".checkpoint-5.part", "epoch_1.pt"]


def test_every_second_epoch_is_kept_and_never_one_that_is_needed(model, tmp_path):
    folder = UnifiedFolder(tmp_path)
    snapshots = snapshots_in(folder, every=2, limit=3, needed={2})
    for epoch in range(1, 12):
        snapshots.on_epoch_end(
            None,
            at(epoch, STEPS * epoch, best=6 if epoch > 6 else 0),
            TrainerControl(),
            model=model,
            lr_scheduler=Rate(),
        )
    # 2 is needed, 6 is the best, 11 the last, which has a file whatever its number.
    assert list(epochs_of(folder.checkpoints)) == [2, 6, 11]
    names = [path.name for path in epochs_of(folder.checkpoints).values()]
    assert all(re.fullmatch(r"checkpoint_epoch_00\d\d_lr_0\.000100_\d{8}_\d{6}\.pt", name) for name in names)


def test_a_file_is_named_after_the_rate_of_its_last_step_and_not_of_the_next(model, tmp_path):
    class Falling(Rate):
        rates: ClassVar = iter([[3e-4], [0.0]])

        def get_last_lr(self):
            return next(self.rates)

    snapshots, rate, control = snapshots_in(UnifiedFolder(tmp_path)), Falling(), TrainerControl()
    snapshots.on_pre_optimizer_step(None, at(1, 1), control, lr_scheduler=rate)
    control = snapshots.on_epoch_end(None, at(1, STEPS), control, model=model, lr_scheduler=rate)
    (path,) = epochs_of(UnifiedFolder(tmp_path).checkpoints).values()
    assert "_lr_0.000300_" in path.name
    assert control.should_log  # so that metadata.json, which is made of the records, has the same rate


def test_an_epoch_that_comes_again_leaves_one_file(model, tmp_path):
    folder = UnifiedFolder(tmp_path)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "checkpoint_epoch_0001_lr_0.000100_20200101_000000.pt").write_bytes(
        b"of a cut session"
    )
    snapshots_in(folder).on_epoch_end(None, at(1, STEPS), TrainerControl(), model=model, lr_scheduler=Rate())
    assert len(list(folder.checkpoints.glob("*.pt"))) == 1
    assert torch.load(epochs_of(folder.checkpoints)[1], weights_only=True)["step"] == STEPS


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
