"""A run that is asked to stop saves a checkpoint and ends; resumed, it is the undisturbed run to the last bit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers.trainer_pt_utils import safe_globals

from dure.config import dump_yaml
from dure.events import RunListener
from dure.files import read_json_lines
from dure.runs.checkpoints import checkpoints, last_checkpoint
from dure.runs.folder import RunFolder
from dure.signals import STOP_FILE
from dure.training.run import RunRequest, run

SCRIPT = Path(__file__).with_name("stopped_workers.py")


class Asks(RunListener):
    """Asks for a stop as soon as a record is of one of these steps."""

    def __init__(self, file, *steps):
        self.file, self.steps, self.told_lines = file, list(steps), []

    def progressed(self, progress):
        if self.steps and progress.step >= self.steps[0]:
            self.steps.pop(0)
            self.file.touch()

    def notified(self, message):
        self.told_lines.append(message)


def same(one, other) -> bool:
    """Whether two saved states are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool((one == other).all()) if hasattr(one, "shape") else one == other


def figures(folder):
    """Every number of a record that is not a time."""
    return [
        {
            key: value
            for key, value in record.items()
            if not key.endswith(("seconds", "_runtime", "_per_second"))
        }
        for record in read_json_lines(folder / "metrics.jsonl")
    ]


def stopped_and_resumed(experiment, profile, folder, at):
    """Run, with a stop asked for at every one of these steps, until the end; return the last result and the stops."""
    file, stops = folder / STOP_FILE, []
    for steps in [*([step] for step in at), []]:
        file.unlink(missing_ok=True)
        request = RunRequest(
            experiment, profile, folder, resume=True, listeners=(Asks(file, *steps),), stop_file=file
        )
        result = run(request)
        assert RunFolder(folder).read_result() == result
        if result.state == "completed":
            break
        assert result.state == "interrupted"
        assert not (folder / "final_model").exists()
        stops.append(result.metrics["steps"])
    return result, stops


def assert_same_run(one, other):
    assert figures(one) == figures(other)
    weights = [load_file(folder / "final_model" / "model.safetensors") for folder in (one, other)]
    assert same(*weights)
    assert [*checkpoints(one)] == [*checkpoints(other)]
    last = [last_checkpoint(folder) for folder in (one, other)]
    assert sorted(path.name for path in last[0].iterdir()) == sorted(path.name for path in last[1].iterdir())
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "rng_state_1.pth",
        "ema.pt",
    ):
        if (last[0] / name).is_file():
            with safe_globals():
                states = [torch.load(path / name, weights_only=True) for path in last]
            for state in states:
                # Libraries draw from it when they are first imported; training never does.
                state.pop("python", None)
            assert same(*states), name
    states = [json.loads((path / "trainer_state.json").read_text()) for path in last]
    for state in states:
        # The operations are counted anew in every session and added up in single precision.
        for key in ("log_history", "best_model_checkpoint", "total_flos"):
            state.pop(key)
    assert states[0] == states[1]


CASES = {
    "accumulated, in groups of length, with an average": (
        ("bert", "full"),
        {"ema": 0.9, "objective": {"r_drop": 0.5}, "batch_size": 4, "gradient_accumulation_steps": 2,
         "max_steps": 14, "eval_every": 5, "log_every": 3, "epochs": 4, "early_stopping_patience": 2},
        (2, 7),
    ),
    "in random order, with processes that load": (
        ("t5", "full"),
        {"group_by_length": False, "num_data_workers": 2, "batch_size": 8, "max_steps": 8, "eval_every": 4,
         "log_every": 1, "epochs": 2, "save_total_limit": 3},
        (2, 5),
    ),
    "by epochs": (
        ("bart", "lora"),
        {"batch_size": 8, "max_steps": 12, "eval_every": "epoch", "log_every": 2, "epochs": 3, "keep_epochs": 1,
         "save_total_limit": 1},
        (2, 8),
    ),
}  # fmt: skip


def shaped(tiny, architecture, training):
    experiment = tiny(*architecture, **{key: value for key, value in training.items() if key != "eval_every"})
    own = {key: value for key, value in training.items() if key != "objective"}
    return experiment.model_copy(update={"training": experiment.training.model_copy(update=own)})


FIRST, *OTHERS = CASES


@pytest.mark.parametrize("case", [FIRST, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_a_run_that_is_stopped_between_validations_ends_as_an_undisturbed_one(case, tiny, cpu, tmp_path):
    architecture, training, at = CASES[case]
    experiment = shaped(tiny, architecture, training)
    whole = run(RunRequest(experiment, cpu, tmp_path / "whole"))
    assert whole.state == "completed"
    result, stops = stopped_and_resumed(experiment, cpu, tmp_path / "cut", at)
    assert len(stops) == len(at)
    assert result.best_checkpoint == whole.best_checkpoint
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_what_is_due_at_a_step_comes_before_the_stop(tiny, cpu, tmp_path):
    experiment = shaped(tiny, ("bert", "full"), {"max_steps": 4, "eval_every": 2, "log_every": 1})
    file = tmp_path / STOP_FILE
    # The record of step 2 comes before its validation, which is made and saved all the same.
    result = run(RunRequest(experiment, cpu, tmp_path, listeners=(Asks(file, 2),), stop_file=file))
    assert (result.state, result.metrics["steps"]) == ("interrupted", 2)
    assert [
        record["step"] for record in read_json_lines(tmp_path / "metrics.jsonl") if "eval_loss" in record
    ][-1] == 2
    assert [*checkpoints(tmp_path)] == [2]
    # Asked for before it begins, the run loads nothing and goes on later as if it had not been tried.
    listener = Asks(file)
    again = run(RunRequest(experiment, cpu, tmp_path, resume=True, listeners=(listener,), stop_file=file))
    assert (again.state, again.metrics["steps"]) == ("interrupted", 0)
    assert any("before there was anything" in line for line in listener.told_lines)
    file.unlink()
    assert run(RunRequest(experiment, cpu, tmp_path, resume=True, stop_file=file)).state == "completed"


@pytest.mark.slow
def test_two_workers_stop_at_the_same_step_and_go_on_exactly(tiny, tmp_path):
    experiment = shaped(
        tiny, ("bert", "full"),
        {"ema": 0.9, "batch_size": 8, "gradient_accumulation_steps": 2, "max_steps": 8, "eval_every": 3,
         "log_every": 3, "epochs": 4},
    )  # fmt: skip
    (tmp_path / "experiment.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path / "experiment.yaml"), str(tmp_path)],
            env={
                **os.environ, **world, "PYTHONPATH": os.pathsep.join(sys.path),
                "RANK": str(rank), "LOCAL_RANK": str(rank),
            },
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors.decode()[-3000:]
    assert [torch.load(tmp_path / f"ended_{rank}.pt", weights_only=True) for rank in range(2)] == [
        [8, 4, 8]
    ] * 2
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
