"""A model that DeepSpeed shares out between two processes learns, validates and is left as without it."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    T5Config,
)

from dure.config.deepspeed import deepspeed_settings
from dure.errors import UserError
from dure.files import read_json_lines
from dure.modeling.weights import STATE
from dure.runs.folder import RunFolder, StageFolder
from dure.training.run import RunRequest
from dure.training.zero import settings_of

pytest.importorskip("deepspeed")

WORKER = """
import os, pickle, sys
import torch.distributed
from datetime import timedelta
import deepspeed.ops
from dure.training.run import run

# Kernels for inference, which training never calls, and which take half a minute to compile.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
rank, num_workers = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=120))
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        run(pickle.load(file), rank=rank, num_workers=num_workers)
"""
SHORT = """
import torch

def look(module, inputs, output):
    if isinstance(module, torch.nn.LayerNorm) and module.training:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

torch.nn.modules.module.register_module_forward_hook(look)
"""
"""Lets memory not suffice in the first pass of training."""
WITHOUT_DROPOUT = {
    "bart": BartConfig(dropout=0.0),
    "bert": BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    "t5": T5Config(dropout_rate=0.0),
}
TIMED = ("seconds", "_runtime", "_per_second")
EVERYTHING = {
    "ema": 0.9,
    "keep_epochs": 1,
    "layer_lr_decay": 0.8,
    "gradient_accumulation_steps": 2,
    "save_total_limit": 9,
}


def together(*requests: RunRequest, before: str = "", code: int = 0) -> None:
    """Run one after another in as many processes as the profile says, as Ray Train starts them.

    One under DeepSpeed comes last, since it takes the process for good.
    """
    files = []
    for request in requests:
        request.path.mkdir(parents=True, exist_ok=True)
        files.append(request.path / "request.pickle")
        files[-1].write_bytes(pickle.dumps(request))
    number = request.profile.num_workers
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", before + WORKER, *map(str, files)],
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(number),
                "LOCAL_WORLD_SIZE": str(number),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(number)
    ]
    until = time.monotonic() + 240
    try:
        codes = [process.wait(timeout=max(1.0, until - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [code] * number, (request.path / "run.log").read_text(encoding="utf-8")[-4000:]


@pytest.fixture
def experiment_of(tiny, tmp_path):
    """Make an experiment without dropout, whose random numbers no two arrangements share."""

    def make(architecture="bert", kind="full", steps=None, **settings):
        WITHOUT_DROPOUT[architecture].save_pretrained(tmp_path / "checkpoint")
        experiment = tiny(architecture, kind, **settings)
        model = experiment.model.model_copy(update={"checkpoint": str(tmp_path / "checkpoint")})
        changed = {} if steps is None else {"max_steps": steps, "epochs": 9, "eval_every": steps}
        training = experiment.training.model_copy(update=changed)
        return experiment.model_copy(update={"model": model, "training": training})

    return make


@pytest.fixture
def profile_of(cpu, tmp_path):
    """Make a profile of some processes on a CPU with a ZeRO stage."""

    def make(stage, num_workers=2):
        profile = cpu.model_copy(update={"num_workers": num_workers})
        if stage is None:
            return profile
        path = tmp_path / f"zero{stage}.json"
        zero = {"stage": stage}
        if stage == 3:
            # Few elements, so that a miniature has weights on either side of it.
            zero["stage3_param_persistence_threshold"] = 100
        path.write_text(json.dumps({"zero_optimization": zero}), encoding="utf-8")
        return profile.model_copy(update={"deepspeed": str(path)})

    return make


def records_of(path):
    return [
        {key: value for key, value in record.items() if not key.endswith(TIMED)}
        for record in read_json_lines(RunFolder(path).metrics)
    ]


def assert_alike(path, other, rel=1e-5):
    found, wanted = records_of(path), records_of(other)
    assert [record.keys() for record in found] == [record.keys() for record in wanted]
    for record, want in zip(found, wanted, strict=True):
        for key, value in want.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=rel, abs=rel)
            assert record[key] == same, (key, want["step"])


def assert_same_weights(found, wanted, atol=1e-5):
    """Compare all but what attention cannot tell apart: its gradient is noise, which AdamW makes steps of."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if not name.endswith(("key.bias", "k_proj.bias")):
            torch.testing.assert_close(
                found[name], tensor, atol=atol, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


def weights_of(path):
    return torch.load(path, weights_only=True)[STATE]


def cut_off(path, other, step):
    """Copy a finished run as a kill after a step would have left it."""
    shutil.copytree(path, other)
    for checkpoint in other.glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(other / "final_model")
    (other / "result.json").unlink()


def test_zero_2_gives_the_records_and_the_model_of_plain_training(experiment_of, profile_of, tmp_path):
    experiment = experiment_of(objective={"label_smoothing": 0.1, "class_weights": "balanced"})
    together(
        RunRequest(experiment, profile_of(None), tmp_path / "plain"),
        RunRequest(experiment, profile_of(2), tmp_path / "zero"),
    )
    assert (tmp_path / "zero" / "checkpoint-6" / "weights.pt").is_file()
    assert_alike(tmp_path / "zero", tmp_path / "plain")
    model, plain = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / name / "final_model")
        for name in ("zero", "plain")
    )
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, plain.eval()(ids).logits, atol=1e-4, rtol=1e-4)
    told = (tmp_path / "zero" / "run.log").read_text(encoding="utf-8")
    assert "training.on_oom=retry does nothing under DeepSpeed" in told
    assert "on_oom" not in (tmp_path / "plain" / "run.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_zero_3_gives_the_losses_of_plain_training_in_bf16(experiment_of, profile_of, tmp_path):
    experiment = experiment_of(precision="bf16")
    together(
        RunRequest(experiment, profile_of(None), tmp_path / "plain"),
        RunRequest(experiment, profile_of(3), tmp_path / "zero"),
    )
    found, wanted = (
        [
            (record["step"], key, value)
            for record in records_of(tmp_path / name)
            for key, value in record.items()
            if key.endswith("loss")
        ]
        for name in ("zero", "plain")
    )
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    assert [each[2] for each in found] == pytest.approx([each[2] for each in wanted], rel=5e-3)
    # Where all of a model computes in bf16 even the first loss differs.
    assert found[0][2] == pytest.approx(wanted[0][2], rel=1e-6)
    final = load_file(tmp_path / "zero/final_model/model.safetensors")
    assert {tensor.dtype for tensor in final.values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_stages_give_one_loss_curve_over_20_steps(precision, experiment_of, profile_of, tmp_path):
    experiment = experiment_of(steps=20, precision=precision)
    ways = {stage: profile_of(stage) for stage in (None, 0, 1, 2, 3)} | {"alone": profile_of(None, 1)}
    losses = {}
    for name, profile in ways.items():
        together(RunRequest(experiment, profile, tmp_path / str(name)))
        found = [record["loss"] for record in records_of(tmp_path / str(name)) if "loss" in record]
        losses[name] = torch.tensor(found, dtype=torch.float64)
        assert len(found) == 20
    apart = {name: (each / losses[None] - 1).abs() for name, each in losses.items()}
    for stage in (0, 1, 2, 3):
        # One worker computes the same with its sums in another order: that far apart is rounding.
        assert apart[stage].max() < (1e-5 if precision == "fp32" else 2 * apart["alone"].max())


@pytest.mark.slow
def test_an_adapter_on_4_bit_weights_learns_under_zero_2_as_without_it(experiment_of, profile_of, tmp_path):
    experiment = experiment_of("t5", "qlora", ema=0.9, save_total_limit=9)
    for name, profile in (("plain", profile_of(None)), ("zero", profile_of(2))):
        together(RunRequest(experiment, profile, tmp_path / name))
    assert_alike(tmp_path / "zero", tmp_path / "plain")
    last = "checkpoint-6/ema.pt"
    assert_same_weights(weights_of(tmp_path / "zero" / last), weights_of(tmp_path / "plain" / last))
    cut_off(tmp_path / "zero", tmp_path / "on", step=2)
    together(RunRequest(experiment, profile_of(2), tmp_path / "on", resume=True))
    assert_alike(tmp_path / "on", tmp_path / "zero")


@pytest.mark.slow
def test_running_out_of_memory_ends_the_run_and_is_recorded(experiment_of, profile_of, tmp_path):
    request = RunRequest(experiment_of(on_oom="shrink"), profile_of(2), tmp_path / "run")
    together(request, before=SHORT, code=1)
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["state"] == "failed"
    assert "DeepSpeed settings that offload" in result["error"]
    stats = [
        json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "run" / "oom_stats").iterdir()
    ]
    assert {each["worker"] for each in stats} == {0, 1}
    assert {(each["phase"], each["action"], each["step"]) for each in stats} == {("forward", "error", 1)}


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "kind"), [("t5", "full"), ("bart", "lora")])
@pytest.mark.parametrize("stage", [2, 3])
def test_averages_r_drop_generation_and_snapshots_are_those_of_plain_training(
    stage, architecture, kind, experiment_of, profile_of, tmp_path
):
    experiment = experiment_of(
        architecture, kind, objective={"r_drop": 1.0, "label_smoothing": 0.1}, **EVERYTHING
    )
    for name, profile in (("plain", profile_of(None)), ("zero", profile_of(stage))):
        together(RunRequest(experiment, profile, tmp_path / name, layout=StageFolder))
    zero, plain = (StageFolder(tmp_path / name) for name in ("zero", "plain"))
    # Among the records are the ROUGE scores of what was generated.
    assert_alike(tmp_path / "zero", tmp_path / "plain")
    snapshots = sorted(path.name for path in plain.checkpoints.glob("epoch_*.pt"))
    assert snapshots
    for name in snapshots:
        found, wanted = (torch.load(each.checkpoints / name, weights_only=True) for each in (zero, plain))
        assert found.keys() == wanted.keys()
        for key in (STATE, "raw_state"):
            assert_same_weights(found[key], wanted[key])
    last = "checkpoint-6/ema.pt"
    assert_same_weights(weights_of(zero.checkpoints / last), weights_of(plain.checkpoints / last))
    model = AutoModelForSeq2SeqLM.from_pretrained(zero.final_model)
    assert_same_weights(
        load_file(zero.final_model / "model.safetensors"), load_file(plain.final_model / "model.safetensors")
    )
    assert model.generate(torch.arange(10, 20)[None], max_length=8).shape[1] > 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_run_goes_on_exactly_and_with_another_number_of_workers(stage, experiment_of, profile_of, tmp_path):
    experiment = experiment_of(ema=0.9, save_total_limit=9, weight_decay=0.1, layer_lr_decay=0.8)
    together(RunRequest(experiment, profile_of(stage), tmp_path / "whole"))
    wanted = [weights_of(tmp_path / "whole" / "checkpoint-6" / name) for name in ("weights.pt", "ema.pt")]
    for number in (2, 1):
        path = tmp_path / f"with_{number}"
        cut_off(tmp_path / "whole", path, step=2)
        together(RunRequest(experiment, profile_of(stage, number), path, resume=True))
        assert_alike(path, tmp_path / "whole")
        for name, weights in zip(("weights.pt", "ema.pt"), wanted, strict=True):
            found = weights_of(path / "checkpoint-6" / name)
            if number == 2:
                assert all(torch.equal(found[key], weights[key]) for key in weights)
            assert_same_weights(found, weights, atol=5e-5)
        assert not list(path.glob(".checkpoint-*"))
        assert ("are joined" in (path / "run.log").read_text(encoding="utf-8")) == (number == 1)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(3, None), (None, 3), (2, 3)])
def test_a_run_goes_on_from_the_weights_where_parts_do_not_fit_and_says_what_is_lost(
    before, after, experiment_of, profile_of, tmp_path
):
    experiment = experiment_of(ema=0.9, save_total_limit=9)
    together(RunRequest(experiment, profile_of(before), tmp_path / "whole"))
    cut_off(tmp_path / "whole", tmp_path / "on", step=2)
    together(RunRequest(experiment, profile_of(after), tmp_path / "on", resume=True))
    assert "moments of the optimizer begin anew" in (tmp_path / "on" / "run.log").read_text(encoding="utf-8")
    found, wanted = records_of(tmp_path / "on"), records_of(tmp_path / "whole")
    assert [record["step"] for record in found] == [record["step"] for record in wanted]
    rates = [[each["learning_rate"] for each in some if "learning_rate" in each] for some in (found, wanted)]
    assert rates[0] == pytest.approx(rates[1])
    # The first step after it is computed with the same weights.
    first = [next(each["loss"] for each in some if each["step"] == 3) for some in (found, wanted)]
    assert first[0] == pytest.approx(first[1], rel=1e-5)


def test_a_machine_without_deepspeed_is_told_what_to_install(tiny, profile_of, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed") as caught:
        settings_of(tiny("t5", "full"), profile_of(2), "fp32")
    assert "pip install" in caught.value.hint


def test_4_bit_weights_are_refused_by_zero_3(tiny, profile_of, monkeypatch) -> None:
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    with pytest.raises(UserError, match="4-bit"):
        settings_of(tiny("t5", "qlora"), profile_of(3), "fp32")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"optimizer": {"type": "AdamW"}}, "optimizer"),
        ({"gradient_clipping": 1.0}, "gradient_clipping"),
        ({"bf16": {"enabled": True}}, "bf16.enabled"),
        ({"torch_autocast": {"dtype": "float16"}}, "torch_autocast.dtype"),
        ({"zero_optimization": {}}, "no ZeRO stage"),
    ],
)
def test_settings_that_an_experiment_says_are_refused(more, problem, tmp_path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}, **more}), encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        deepspeed_settings(str(path))
