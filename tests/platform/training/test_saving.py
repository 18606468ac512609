"""Checkpoints written behind training are those that training waits for, and break nothing when they break."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import TrainerState

from dure.config import dump_yaml
from dure.errors import RunError
from dure.events import RunListener
from dure.runs.checkpoints import checkpoints
from dure.runs.folder import RunFolder
from dure.runs.manifest import faults
from dure.training import captured, hf, memory
from dure.training.captured import Captured
from dure.training.run import RunRequest, run

from .killed_in_writing import FILE
from .test_stopping import assert_same_run

SCRIPT = Path(__file__).with_name("killed_in_writing.py")
SECONDS = 120


class Notes(RunListener):
    """Keeps what is told, and looks at every checkpoint when it is said to be whole."""

    def __init__(self, at_step=lambda step: None):
        self.lines, self.saved_steps, self.at_step = [], [], at_step

    def notified(self, message):
        self.lines.append(message)

    def progressed(self, progress):
        if progress.kind == "train":
            self.at_step(progress.step)

    def saved(self, checkpoint):
        assert faults(checkpoint) == []
        assert checkpoint in checkpoints(checkpoint.parent).values()
        self.saved_steps.append(int(checkpoint.name.rpartition("-")[2]))

    @property
    def waits(self):
        return [
            line for line in self.lines if line.startswith("training pauses while a checkpoint is written")
        ]


@pytest.fixture(scope="module")
def experiment(tiny):
    return tiny(
        "bert", "full", objective={"r_drop": 0.5}, ema=0.9, gradient_accumulation_steps=2, save_total_limit=9
    )


@pytest.fixture(scope="module")
def whole(experiment, cpu, tmp_path_factory):
    """A run that nothing disturbs, its checkpoints written behind it in the middle of epochs."""
    folder, notes = tmp_path_factory.mktemp("whole"), Notes()
    run(RunRequest(experiment, cpu, folder, listeners=(notes,)))
    assert notes.saved_steps == [2, 4, 6]
    assert notes.waits == []
    return folder


def assert_same_files(one, other):
    """Compare all checkpoints, byte by byte but for what names their folder or the time."""
    assert [*checkpoints(one)] == [*checkpoints(other)]
    for step, path in checkpoints(one).items():
        names = sorted(each.name for each in path.iterdir())
        assert names == sorted(each.name for each in checkpoints(other)[step].iterdir())
        for name in set(names) - {
            "manifest.json",
            "trainer_state.json",
            "training_args.bin",
            "rng_state.pth",
        }:
            assert (path / name).read_bytes() == (checkpoints(other)[step] / name).read_bytes(), name


def slowed(monkeypatch, act):
    """Call something in the thread before a checkpoint is written."""
    write = Captured.write

    def first(self, folder, write_model):
        act(folder)
        write(self, folder, write_model)

    monkeypatch.setattr(Captured, "write", first)


def test_a_checkpoint_behind_training_is_the_one_that_training_waits_for(
    whole, experiment, cpu, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "free_on_host", lambda: 0)
    notes = Notes()
    run(RunRequest(experiment, cpu, tmp_path, listeners=(notes,)))
    assert notes.saved_steps == [2, 4, 6]
    assert len(notes.waits) == 1
    assert "less than twice as much" in notes.waits[0]
    assert_same_run(whole, tmp_path)
    assert_same_files(whole, tmp_path)


def test_a_run_goes_on_exactly_from_a_checkpoint_that_was_written_behind_it(
    whole, experiment, cpu, tmp_path, monkeypatch
):
    restored = []
    monkeypatch.setattr(hf, "restore_mps", restored.append)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    for name in ("checkpoint-4", "checkpoint-6", "final_model"):
        shutil.rmtree(cut / name)
    (cut / "result.json").unlink()
    run(RunRequest(experiment, cpu, cut, resume=True))
    assert_same_run(whole, cut)
    assert_same_files(whole, cut)
    assert {*restored} == {cut / "checkpoint-2"}


def test_the_random_numbers_of_mps_go_on_too(tmp_path, monkeypatch):
    # Dropout draws from the device's own generator, which the trainer of transformers keeps of CUDA alone.
    drawn = torch.arange(44, dtype=torch.uint8)
    restored = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: drawn)
    monkeypatch.setattr(torch.mps, "set_rng_state", restored.append)
    name, states = captured.random_states(0, 1)
    torch.save(states, tmp_path / name)
    captured.restore_mps(tmp_path)
    assert [each.tolist() for each in restored] == [drawn.tolist()]
    del states["mps"]  # as of a run on another machine
    torch.save(states, tmp_path / name)
    captured.restore_mps(tmp_path)
    assert len(restored) == 1


def test_training_goes_on_while_a_checkpoint_is_written_and_what_it_changes_is_not_in_it(
    whole, experiment, cpu, tmp_path, monkeypatch
):
    gone_on = threading.Event()
    late = []
    slowed(monkeypatch, lambda folder: late.append(gone_on.wait(SECONDS)) if "-2." in folder.name else None)
    run(RunRequest(experiment, cpu, tmp_path, listeners=(Notes(lambda step: step == 3 and gone_on.set()),)))
    assert late == [True]
    assert_same_files(whole, tmp_path)


def test_memory_that_runs_out_while_the_copy_is_made_costs_the_copy_alone(
    whole, experiment, cpu, tmp_path, monkeypatch
):
    on_host, calls = captured._on_host, []

    def short(tensor):
        calls.append(tensor)
        if len(calls) == 5:
            raise MemoryError
        return on_host(tensor)

    monkeypatch.setattr(captured, "_on_host", short)
    notes = Notes()
    run(RunRequest(experiment, cpu, tmp_path, listeners=(notes,)))
    assert notes.saved_steps == [2, 4, 6]
    assert ["memory ran out" in line for line in notes.waits] == [True]
    assert_same_files(whole, tmp_path)


def test_what_fails_in_the_thread_ends_the_run_as_it_would_in_the_loop(
    experiment, cpu, tmp_path, monkeypatch
):
    messages = []
    for way, free in (("behind", 2**60), ("waiting", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(memory, "free_on_host", lambda free=free: free)

            def broken(folder):
                if folder.name == ".checkpoint-4.part":
                    raise OSError(errno.EIO, "the disk is broken")

            slowed(patch, broken)
            with pytest.raises(RunError) as error:
                run(RunRequest(experiment, cpu, tmp_path / way))
        messages.append(str(error.value).replace(way, ""))
        assert RunFolder(tmp_path / way).read_result().state == "failed"
        assert [*checkpoints(tmp_path / way)] == [2]
    assert messages[0] == messages[1]
    assert "the disk is broken" in messages[0]


def test_an_error_in_training_waits_for_the_checkpoint_that_is_being_written(
    experiment, cpu, tmp_path, monkeypatch
):
    def fail(step):
        if step == 3:
            raise ZeroDivisionError

    slowed(monkeypatch, lambda folder: time.sleep(1))
    notes = Notes(fail)
    with pytest.raises(RunError, match="ZeroDivisionError"):
        run(RunRequest(experiment, cpu, tmp_path, listeners=(notes,)))
    assert notes.saved_steps == [2]
    assert faults(tmp_path / "checkpoint-2") == []
    assert not any(thread.name.startswith("dure-checkpoint") for thread in threading.enumerate())


def test_a_kill_in_the_middle_of_writing_leaves_the_checkpoint_before_it_whole(
    whole, experiment, cpu, tmp_path
):
    file = tmp_path / "experiment.yaml"
    file.write_text(dump_yaml(experiment), encoding="utf-8")
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(file), str(path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + SECONDS
    while not (path / FILE).exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -9
    assert [*checkpoints(path)] == [2]
    assert faults(path / "checkpoint-2") == []
    assert (path / ".checkpoint-4.part" / "model.safetensors").is_file()
    run(RunRequest(experiment, cpu, path, resume=True))
    assert not (path / ".checkpoint-4.part").exists()
    assert_same_run(whole, path)


def test_a_copy_keeps_ties_leaves_out_what_is_frozen_and_does_not_change_with_training():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad])

    def step():
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()

    step()
    now = Captured(
        weights=captured.weights_of(model),
        files={"optimizer.pt": optimizer.state_dict()},
        recovery={},
        state=TrainerState(),
        frozen=captured.frozen_in(model),
    )
    kept = now.copied()
    before = {name: value.clone() for name, value in kept.weights.items()}
    moment = kept.files["optimizer.pt"]["state"][0]["exp_avg"].clone()
    step()
    assert all(torch.equal(value, before[name]) for name, value in kept.weights.items())
    assert torch.equal(kept.files["optimizer.pt"]["state"][0]["exp_avg"], moment)
    assert not torch.equal(model[0].weight, before["0.weight"])
    assert kept.weights["1.weight"] is kept.weights["0.weight"]
    assert kept.weights["1.bias"].data_ptr() == model[1].bias.data_ptr()
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    buffers = 4 * (4 + 4) + 8
    steps = 4 * len(optimizer.state)
    assert now.num_bytes == 3 * 4 * trained + buffers + steps


def test_the_free_memory_is_that_of_the_tightest_group_of_processes(tmp_path, monkeypatch):
    group = tmp_path / "limits" / "pod" / "container"
    group.mkdir(parents=True)
    for folder, limit, used, cached in ((group.parent, 1000, 700, 100), (group, "max", 600, 0)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    (tmp_path / "cgroup").write_text("4:memory:/other\n0::/pod/container\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_LIMITS", tmp_path / "limits")
    assert memory.free_on_host() == 400
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "nowhere")
    assert memory.free_on_host() > 1000
