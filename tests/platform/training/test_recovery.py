"""Running out of memory: what is computed again is what a run without it computes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dure.config import dump_yaml
from dure.errors import RunError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.training.oom import FittingRows, happened_in, is_out_of_memory
from dure.training.recovery import ALL, MAX_ATTEMPTS
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker

ACCUMULATED = {"gradient_accumulation_steps": 2, "max_steps": 4, "eval_every": 2, "num_data_workers": 0}


@pytest.fixture(autouse=True)
def forgetful(tmp_path, monkeypatch):
    """A cache that remembers no other test's rows."""
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))


class Short:
    """Lets memory not suffice: in the passes of training that are named, or in all that have too many rows.

    The error comes from the encoder's last layer: in the backward pass some gradients are there by then.
    """

    def __init__(self, forward=(), backward=(), rows=None, from_pass=1):
        self.forward, self.backward, self.rows, self.from_pass = forward, backward, rows, from_pass
        self.passes = 0

    def __call__(self, model):
        layer = model.base_model.encoder.layer[-1]
        model.register_forward_pre_hook(self._count)
        layer.register_forward_hook(self._look)

    def _count(self, module, args):
        self.passes += module.training

    def _look(self, module, args, output):
        if not module.training:
            return
        too_many = self.rows is not None and len(output) > self.rows and self.passes >= self.from_pass
        if self.passes in self.forward:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if self.passes in self.backward or too_many:
            output.register_hook(self._fail)

    def _fail(self, gradient):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def made(experiment, cpu, folder, *changes, told=None):
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    for change in changes:
        change(model)
    return ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, corpus.dev, profile=cpu, folder=RunFolder(folder),
        worker=Worker(notify=[].append if told is None else told.append),
    )  # fmt: skip


def stats_of(folder):
    return [json.loads(path.read_text()) for path in sorted((folder / "oom_stats").glob("oom_stats_*.json"))]


def losses_of(folder):
    return [record["loss"] for record in read_json_lines(folder / "metrics.jsonl") if "loss" in record]


def last_weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "checkpoint-4" / "model.safetensors")


def flat(weights):
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


def test_a_step_tried_again_is_the_step_that_failed_dropout_and_all(tiny, cpu, tmp_path) -> None:
    experiment = tiny("bert", "full", save_total_limit=5, **ACCUMULATED)
    made(experiment, cpu, tmp_path / "calm").train()
    told = []
    # Pass 3 is the first micro-batch of step 2. It is made again as pass 4; pass 7 is the second one of step 3.
    trainer = made(experiment, cpu, tmp_path / "short", Short(forward=(3,), backward=(7,)), told=told)
    outcome = trainer.train()
    assert outcome["num_oom"] == 2
    assert losses_of(tmp_path / "short") == losses_of(tmp_path / "calm")
    calm = last_weights(tmp_path / "calm")
    assert all(torch.equal(weight, calm[name]) for name, weight in last_weights(tmp_path / "short").items())
    first, second = stats_of(tmp_path / "short")
    assert (first["step"], first["phase"], first["micro_batch"]) == (2, "forward", 1)
    assert first["module"] == "bert.encoder.layer.0"
    assert first["shapes"]["input_ids"][0] == first["rows"] == 4
    assert first["allocated_mb"] > 0
    assert (second["step"], second["phase"], second["micro_batch"]) == (3, "backward", 2)
    assert "allocate memory" in second["error"]
    lines = [line for line in told if "out of memory" in line]
    assert len(lines) == 2
    assert "the same step once more (attempt 2 of 4)" in lines[0]


def test_a_shrunk_run_ends_where_one_with_the_smaller_batch_ends(tiny, cpu, tmp_path) -> None:
    # In fp64: in fp32 Adam blows the rounding of gradients near zero up to parts of its rate, and two runs of
    # different batch sizes end 4e-4 of their way apart without any error.
    common = {"max_steps": 4, "eval_every": 2, "save_total_limit": 5}
    large = tiny("bert", "full", batch_size=8, gradient_accumulation_steps=2, on_oom="shrink", **common)
    small = tiny("bert", "full", batch_size=2, gradient_accumulation_steps=8, **common)
    made(small, cpu, tmp_path / "small", without_dropout, torch.nn.Module.double).train()
    told = []
    # Step 2 begins with pass 3: 8 rows fail, then 4, then 2 do not.
    short = Short(rows=2, from_pass=3)
    outcome = made(
        large, cpu, tmp_path / "short", without_dropout, torch.nn.Module.double, short, told=told
    ).train()
    assert outcome["num_oom"] == 2
    assert [line.split(": ")[1] for line in told if "out of memory" in line] == [
        "4 rows at once from here on, 2 passes for each before",
        "2 rows at once from here on, 4 passes for each before",
    ]
    assert losses_of(tmp_path / "short") == pytest.approx(losses_of(tmp_path / "small"), rel=1e-5)
    start = flat(made(small, cpu, tmp_path / "start", torch.nn.Module.double).model.state_dict())
    ends = [flat(last_weights(tmp_path / name)) for name in ("small", "short")]
    assert (ends[0] - ends[1]).norm() < 1e-10 * (ends[0] - start).norm()
    again, told = Short(rows=2), []
    outcome = made(large, cpu, tmp_path / "again", without_dropout, again, told=told).train()
    assert outcome["num_oom"] == 0
    assert any("more than 2 rows at once ran out of memory here before" in line for line in told)
    other = large.model_copy(update={"tokenizer": large.tokenizer.model_copy(update={"encoder_max_len": 32})})
    assert made(other, cpu, tmp_path / "other").recovery.rows_at_once == ALL


def test_a_shrunk_run_resumes_with_its_size_to_the_same_weights(tiny, cpu, tmp_path, monkeypatch) -> None:
    experiment = tiny("bert", "full", save_total_limit=5, on_oom="shrink", **ACCUMULATED)
    made(experiment, cpu, tmp_path / "whole", Short(rows=2, from_pass=2)).train()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-4")
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "another machine"))
    resumed = made(experiment, cpu, tmp_path / "cut", Short(rows=2))
    outcome = resumed.train(resume=True)
    assert resumed.recovery.rows_at_once == 2
    assert outcome["num_oom"] == 1
    assert made(experiment, cpu, tmp_path / "cut").train(resume=True)["num_oom"] == 1
    whole = last_weights(tmp_path / "whole")
    assert all(torch.equal(weight, whole[name]) for name, weight in last_weights(tmp_path / "cut").items())


@pytest.mark.parametrize(("policy", "attempts"), [("retry", MAX_ATTEMPTS), ("error", 1)])
def test_a_run_that_cannot_go_on_says_what_to_change(policy, attempts, tiny, cpu, tmp_path) -> None:
    trainer = made(tiny("bert", "full", on_oom=policy, **ACCUMULATED), cpu, tmp_path, Short(rows=1))
    with pytest.raises(RunError, match=r"out of memory at step 1 \(backward.*training\.on_oom=shrink"):
        trainer.train()
    stats = stats_of(tmp_path)
    assert len(stats) == attempts
    assert stats[-1]["action"] == "error"


def test_a_single_row_that_does_not_fit_ends_the_run(tiny, cpu, tmp_path) -> None:
    trainer = made(tiny("bert", "full", on_oom="shrink", **ACCUMULATED), cpu, tmp_path, Short(rows=0))
    with pytest.raises(RunError, match=r"1 rows\) in 4 attempts; a single row is too much"):
        trainer.train()
    assert [each["rows"] for each in stats_of(tmp_path)] == [4, 2, 1, 1, 1, 1]


def test_validation_that_does_not_fit_names_its_own_batch_size(tiny, cpu, tmp_path) -> None:
    def change(model):
        def look(module, args, output):
            if not module.training:
                raise MemoryError

        model.base_model.encoder.register_forward_hook(look)

    trainer = made(tiny("bert", "full", **ACCUMULATED), cpu, tmp_path, change)
    with pytest.raises(RunError, match=r"\(validation\); a smaller training\.eval_batch_size"):
        trainer.train()
    (stats,) = stats_of(tmp_path)
    assert stats["phase"] == "validation"


def test_an_optimizer_that_finds_no_memory_is_not_sent_to_smaller_batches(
    tiny, cpu, tmp_path, monkeypatch
) -> None:
    def step(self, closure=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    trainer = made(tiny("bert", "full", on_oom="shrink", **ACCUMULATED), cpu, tmp_path)
    with pytest.raises(RunError, match=r"\(optimizer\); weights, gradients and moments do not fit") as caught:
        trainer.train()
    assert "batch_size" not in str(caught.value)
    assert "on_oom" not in str(caught.value)


def test_an_error_of_another_kind_is_not_tried_again(tiny, cpu, tmp_path) -> None:
    def change(model):
        def fail(module, args):
            raise RuntimeError("shapes do not match")

        model.register_forward_pre_hook(fail)

    experiment = tiny("bert", "full", **ACCUMULATED)
    experiment = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"evaluate_untrained": False})}
    )
    with pytest.raises(RuntimeError, match="shapes do not match"):
        made(experiment, cpu, tmp_path, change).train()
    assert stats_of(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (MemoryError(), True),
        (RuntimeError("Error named cudaErrorMemoryAllocation at line 90"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)  # fmt: skip
def test_running_out_of_memory_is_known_on_every_device(error, is_memory) -> None:
    assert is_out_of_memory(error) is is_memory


def test_rows_that_fit_are_remembered_as_far_as_the_cache_takes_them(tiny, cpu, tmp_path):
    fitting = FittingRows(tiny("bert", "full"), cpu, torch.nn.Linear(2, 2), "fp32")
    fitting.write(4)
    assert fitting.read() == 4
    fitting.path.write_bytes(b"\0\0")
    assert fitting.read() is None
    shutil.rmtree(fitting.path.parent)
    fitting.path.parent.write_text("a file")  # as on a full disk, nothing is taken there
    fitting.write(2)
    assert fitting.read() is None


def test_the_innermost_module_is_where_it_happened() -> None:
    class Wide(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(Wide()))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        model(torch.ones(1, 2))
    assert happened_in(caught.value, model) == ("forward", "1.0")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_a_process_whose_memory_is_limited_trains_on_in_halves(tiny, tmp_path) -> None:
    experiment = tiny("bert", "full", on_oom="shrink", batch_size=8, max_steps=2, eval_every=2)
    (tmp_path / "experiment.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("real_limit.py")), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["steps"] == 2
    stats = stats_of(tmp_path)
    assert [each["rows"] for each in stats] == [8, 4][: outcome["num_oom"]]
    assert "rows at once from here on" in outcome["told"][-1]
    assert "allocate memory" in stats[0]["error"]
