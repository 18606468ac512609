"""A run that goes back to a kept epoch ends where it ended before, and loses nothing of what it left."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from dure.errors import UserError
from dure.files import read_json_lines
from dure.runs.checkpoints import checkpoints
from dure.runs.epochs import epochs_of
from dure.runs.folder import UnifiedFolder
from dure.training.rewinding import go_back
from dure.training.run import RunRequest, run

STEPS = 2
"""Steps of an epoch."""


@pytest.fixture(scope="module")
def whole(tiny, cpu, tmp_path_factory):
    """A finished run of four epochs, every checkpoint kept, with an average and early stopping, and its experiment."""
    experiment = tiny(
        "bert", "full", batch_size=20, ema=0.9, keep_epochs=1, save_total_limit=9, early_stopping_patience=9
    )
    changed = {"epochs": 4, "max_steps": None, "eval_every": "epoch", "scheduler": "cosine"}
    training = experiment.training.model_copy(update=changed)
    experiment = experiment.model_copy(update={"training": training})
    path = tmp_path_factory.mktemp("whole") / "run"
    run(RunRequest(experiment, cpu, path, layout=UnifiedFolder))
    return experiment, path


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of it, and its experiment."""
    experiment, path = whole
    shutil.copytree(path, tmp_path / "run")
    return experiment, UnifiedFolder(tmp_path / "run")


def records_of(path):
    return [
        {
            key: value
            for key, value in record.items()
            if not key.endswith(("seconds", "runtime", "per_second"))
        }
        for record in read_json_lines(path / "metrics.jsonl")
    ]


def back(folder, experiment, epoch):
    told = []
    go_back(folder, epochs_of(folder.checkpoints)[epoch], experiment, notify=told.append)
    return told


def test_with_its_checkpoint_it_comes_to_the_same_end(whole, copy, cpu) -> None:
    experiment, folder = copy
    (told,) = back(folder, experiment, 2)
    assert "after epoch 2 (step 4) exactly" in told
    assert list(epochs_of(folder.checkpoints)) == [1, 2]
    assert list(checkpoints(folder.checkpoints)) == [STEPS, 2 * STEPS]
    run(RunRequest(experiment, cpu, folder.path, resume=True, layout=UnifiedFolder))
    assert records_of(folder.path) == records_of(whole[1])
    found, wanted = (load_file(each / "final_model/model.safetensors") for each in (folder.path, whole[1]))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_without_it_the_weights_and_the_schedule_go_on(whole, copy, cpu) -> None:
    experiment, folder = copy
    for step in (STEPS, 2 * STEPS):  # that of the best epoch so far is gone too
        shutil.rmtree(folder.checkpoints / f"checkpoint-{step}")
    (told,) = back(folder, experiment, 2)
    assert "its checkpoint is gone" in told
    run(RunRequest(experiment, cpu, folder.path, resume=True, layout=UnifiedFolder))
    log = max((folder.path / "logs").glob("*.log"))
    assert "the moments of the optimizer begin anew" in log.read_text(encoding="utf-8")
    found, wanted = records_of(folder.path), records_of(whole[1])
    assert [record["step"] for record in found] == [record["step"] for record in wanted]
    rates = [[each["learning_rate"] for each in some if "learning_rate" in each] for some in (found, wanted)]
    assert rates[0] == pytest.approx(rates[1])
    state = json.loads((folder.checkpoints / "checkpoint-8/trainer_state.json").read_text(encoding="utf-8"))
    scored = [each for each in found if "eval_accuracy" in each and each["step"] >= 2 * STEPS]
    best = max(scored, key=lambda each: each["eval_accuracy"])
    assert state["best_global_step"] == best["step"]
    weights, epoch = (
        torch.load(path, weights_only=True)
        for path in (folder.checkpoints / "checkpoint-4/weights.pt", epochs_of(folder.checkpoints)[2])
    )
    assert all(torch.equal(weights["model_state"][key], value) for key, value in epoch["raw_state"].items())


def test_nothing_is_lost(whole, copy) -> None:
    experiment, folder = copy
    before = {path.relative_to(folder.path) for path in folder.path.rglob("*") if path.is_file()}
    back(folder, experiment, 1)
    (aside,) = folder.path.glob("replaced_*")
    after = {path.relative_to(folder.path) for path in folder.path.rglob("*") if path.is_file()}
    moved = before - after
    assert {path.name for path in moved} >= {"result.json", "model.safetensors", "optimizer.pt"}
    for path in moved:
        place = path.relative_to("checkpoints_final") if path.parts[0] == "checkpoints_final" else path
        assert (aside / place).is_file(), path
    assert records_of(aside) == records_of(whole[1])


def test_after_the_last_epoch_there_is_nothing_to_go_back_over(copy) -> None:
    experiment, folder = copy
    assert back(folder, experiment, 4) == []
    assert folder.result.is_file()


def test_a_file_that_holds_no_epoch_is_named(copy) -> None:
    experiment, folder = copy
    file = epochs_of(folder.checkpoints)[2]
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"is no file of torch\.save") as caught:
        go_back(folder, file, experiment, notify=print)
    assert str(file) in str(caught.value.where)
    assert folder.result.is_file()
