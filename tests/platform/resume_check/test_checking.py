"""The check of resumption: where it cuts, what it compares, and that no difference escapes it."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.trainer_pt_utils import safe_globals

from dure.errors import UserError
from dure.files import read_json_lines
from dure.resume_check.checking import caveats, shortened, verify_resume
from dure.resume_check.comparison import compare_runs
from dure.resume_check.sessions import drawn_cuts
from dure.runs.checkpoints import last_checkpoint
from dure.training.run import RunRequest, run


@given(num_steps=st.integers(2, 60), seed=st.integers(0, 1000), data=st.data())
def test_cuts_rise_within_the_training_and_one_of_them_asks(num_steps, seed, data):
    num_kills = data.draw(st.integers(0, num_steps - 2))
    cuts = drawn_cuts(num_steps, num_kills, seed)
    steps = [cut.step for cut in cuts]
    assert steps == sorted(set(steps))
    assert len(steps) == num_kills + 1
    assert all(1 <= step < num_steps for step in steps)
    assert [cut.number for cut in cuts].count(signal.SIGTERM) == 1
    assert drawn_cuts(num_steps, num_kills, seed) == cuts


def test_what_is_checked_has_ends_of_epochs_and_validations_among_its_steps(tiny):
    experiment = shortened(tiny("bert", "full"), 20)
    training, data = experiment.training, experiment.data
    assert (training.max_steps, training.eval_every, training.log_every) == (20, 5, 1)
    assert data.max_train_rows <= 20 / 2 * training.effective_batch_size
    with pytest.raises(UserError, match="--steps"):
        shortened(tiny("bert", "full"), 1)


def test_more_cuts_than_steps_are_refused(tiny, cpu, tmp_path):
    with pytest.raises(UserError, match="--kills 4"):
        verify_resume(
            shortened(tiny("bert", "full"), 5),
            profile=cpu,
            path=tmp_path,
            num_kills=4,
            notify=lambda line: None,
        )


def test_it_says_where_exactness_is_not_promised(tiny, cpu):
    experiment = tiny("bert", "full", num_data_workers=2)
    gpu = cpu.model_copy(update={"device": "cuda", "precision": "fp16", "gpus_per_worker": 1.0})
    here, there = caveats(experiment, cpu), caveats(experiment, gpu)
    assert any("number of workers" in line for line in here)
    assert not any("atomics" in line for line in here)
    assert any("atomics" in line for line in there)
    assert any("fp16" in line for line in there)


@pytest.fixture(scope="module")
def whole(tiny, cpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(RunRequest(tiny("bert", "full", max_steps=4, eval_every=2, ema=0.9), cpu, folder))
    return folder


def _a_loss(folder):
    records = read_json_lines(folder / "metrics.jsonl")
    for record in records:
        if record["kind"] == "train" and record["step"] == 3:
            record["loss"] *= 1 + 1e-9
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


def _a_record(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:-1]))


def _a_weight(folder):
    file = folder / "final_model" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name, value in weights.items() if value.dim() == 2)
    weights[name][0, 0] += 1e-4
    save_file(weights, file, metadata={"format": "pt"})


def _the_optimizer(folder):
    file = last_checkpoint(folder) / "optimizer.pt"
    state = torch.load(file, weights_only=True)
    state["state"][0]["exp_avg"].view(-1)[0] += 1e-4
    torch.save(state, file)


def _the_chance(folder):
    file = last_checkpoint(folder) / "rng_state.pth"
    with safe_globals():
        state = torch.load(file, weights_only=True)
    state["cpu"][100] += 1
    torch.save(state, file)


def _the_counter(folder):
    file = last_checkpoint(folder) / "trainer_state.json"
    file.write_text(file.read_text().replace('"best_global_step": ', '"best_global_step": 1'))


CHANGES = {
    "training loss": _a_loss,
    "records": _a_record,
    "final weights": _a_weight,
    "optimizer": _the_optimizer,
    "random numbers of every worker": _the_chance,
    "best metric, early stopping": _the_counter,
}


def test_a_copy_is_equal_in_everything(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    found = compare_runs(whole, tmp_path / "copy")
    assert all(each.is_equal for each in found)
    names = {each.what for each in found}
    assert {
        *CHANGES,
        "average of the weights",
        "learning-rate schedule",
        "gradient norm",
        "eval_loss",
    } <= names


@pytest.mark.parametrize("what", CHANGES)
def test_a_difference_is_named(what, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    CHANGES[what](tmp_path / "copy")
    different = [each for each in compare_runs(whole, tmp_path / "copy") if not each.is_equal]
    assert [each.what for each in different] == [what]
    if what == "training loss":
        assert different[0].first_step == 3
        assert different[0].difference == pytest.approx(1e-9, rel=0.1)
