"""Trained weights as a file: they come back exactly, into the right model only, and a kill loses none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dure.errors import UserError
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.task import SEQ2SEQ
from dure.modeling.weights import load_weights, save_weights, trained_state
from tests.platform.modeling.tiny_models import CPU, SPECIAL, TARGETS, experiment_of

REPOSITORY = Path(__file__).parents[3]
KINDS = ("full", "lora")


def silent(message: str) -> None:
    pass


def loaded(kind: str, folder: Path, *, seed: int, lora: bool, special=SPECIAL):
    """A model that was changed as training would: what may train is drawn anew from ``seed``."""
    adapters = {"rank": 4, "alpha": 8, "targets": list(TARGETS[kind])} if lora else None
    experiment = experiment_of(kind, folder, tokenizer={"special_tokens": special}, lora=adapters)
    model = load_model(SEQ2SEQ, experiment, CPU, load_tokenizer(experiment, lambda: iter(())), silent)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def logits(model) -> torch.Tensor:
    ids = torch.arange(3, 15).view(2, 6)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)["logits"]


@pytest.mark.parametrize("lora", [False, True], ids=KINDS)
@pytest.mark.parametrize("kind", ["t5", "mt5", "bart"])
def test_loaded_weights_give_the_very_same_logits(kind, lora, checkpoints, tmp_path):
    one = loaded(kind, checkpoints[kind], seed=1, lora=lora)
    other = loaded(kind, checkpoints[kind], seed=2, lora=lora)
    assert not torch.equal(logits(one), logits(other))
    save_weights(one, tmp_path / "best_model.pt", {"epoch": 2, "step": 7})
    load_weights(other, tmp_path / "best_model.pt")
    assert torch.equal(logits(one), logits(other))

    kept = torch.load(tmp_path / "best_model.pt", weights_only=True)
    assert (kept["epoch"], kept["step"]) == (2, 7)
    assert kept["model_state"].keys() == trained_state(one).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["best_model.pt"]


def test_of_a_model_with_adapters_only_these_are_kept(checkpoints, tmp_path):
    whole, adapted = (loaded("t5", checkpoints["t5"], seed=1, lora=lora) for lora in (False, True))
    assert trained_state(whole).keys() == whole.state_dict().keys()
    assert trained_state(adapted).keys() == {
        name for name, parameter in adapted.named_parameters() if parameter.requires_grad
    }
    save_weights(whole, tmp_path / "whole.pt", {})
    save_weights(adapted, tmp_path / "adapted.pt", {})
    assert (tmp_path / "adapted.pt").stat().st_size < (tmp_path / "whole.pt").stat().st_size / 2


def test_weights_of_another_model_are_refused_with_file_and_tensor(checkpoints, tmp_path):
    adapted = loaded("bart", checkpoints["bart"], seed=1, lora=True)
    plain = loaded("t5", checkpoints["t5"], seed=1, lora=False)
    narrower = loaded("bart", checkpoints["bart"], seed=1, lora=False, special=())
    file = tmp_path / "best_model.pt"
    saved = loaded("bart", checkpoints["bart"], seed=2, lora=False)
    save_weights(saved, file, {})
    for model in (adapted, plain, narrower):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(UserError, match="of another model") as caught:
            load_weights(model, file)
        assert caught.value.where == str(file)
        tensor = caught.value.problem.split("'")[1]
        shapes = [trained_state(each).get(tensor, torch.zeros(0)).shape for each in (model, saved)]
        assert shapes[0] != shapes[1]
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "content",
    [None, b"", b"epoch,loss\n1,2\n", {"weights": {}}, {"model_state": 3}, [1], {"model_state": {"a": 1}}],
    ids=["missing", "empty", "text", "other keys", "no tensors", "a list", "a number for a tensor"],
)
def test_a_file_that_dure_did_not_save_is_named(content, checkpoints, tmp_path):
    file = tmp_path / "best_model.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UserError, match="weights") as caught:
        load_weights(loaded("t5", checkpoints["t5"], seed=1, lora=True), file)
    assert caught.value.where == str(file)


def test_a_file_that_would_run_code_is_refused(checkpoints, tmp_path):
    torch.save({"model_state": {}, "about": Path("x")}, tmp_path / "best_model.pt")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_weights(loaded("t5", checkpoints["t5"], seed=1, lora=True), tmp_path / "best_model.pt")


def test_a_changed_byte_is_no_changed_weight(checkpoints, tmp_path):
    file = tmp_path / "best_model.pt"
    model = loaded("t5", checkpoints["t5"], seed=1, lora=True)
    save_weights(model, file, {})
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_weights(model, file)


@pytest.mark.heavy
def test_a_kill_while_weights_are_written_leaves_a_whole_file(tmp_path):
    file = tmp_path / "epoch_1.pt"
    writing = (
        "import sys, itertools, pathlib, torch\n"
        "from dure.modeling.weights import save_weights\n"
        "model = torch.nn.Linear(1000, 1000)\n"
        "for step in itertools.count():\n"
        "    torch.nn.init.constant_(model.weight, step)\n"
        "    save_weights(model, pathlib.Path(sys.argv[1]), {'step': step})\n"
    )
    path = os.pathsep.join([str(REPOSITORY / "platform"), str(REPOSITORY)])
    process = subprocess.Popen(
        [sys.executable, "-c", writing, str(file)], env=os.environ | {"PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".epoch_1.pt.*")) or not file.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = torch.load(file, weights_only=True)
    assert torch.all(kept["model_state"]["weight"] == kept["step"])


def test_weights_of_an_epoch_that_diverged_are_refused(checkpoints, tmp_path):
    model = loaded("t5", checkpoints["t5"], seed=1, lora=False)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("inf")
    save_weights(model, tmp_path / "epoch_1.pt", {})
    with pytest.raises(UserError, match="not finite") as error:
        load_weights(model, tmp_path / "epoch_1.pt")
    assert error.value.where == str(tmp_path / "epoch_1.pt")
