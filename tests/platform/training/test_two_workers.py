"""Two workers agree when one of them runs out of memory, and R-Drop and EMA are those of one worker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dure.config import dump_yaml
from dure.files import read_json_lines

SCRIPT = Path(__file__).with_name("two_workers.py")


@pytest.fixture(scope="module")
def script():
    spec = util.spec_from_file_location("two_workers", SCRIPT)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def experiment(tiny):
    # 17 rows in steps of 16: the second worker has none in the second step.
    return tiny(
        "bert", "full", objective={"r_drop": 2.0, "label_smoothing": 0.1, "class_weights": "balanced"}, ema=0.9,
        batch_size=8, gradient_accumulation_steps=2, max_steps=3, eval_every=3,
    ).with_({"data.max_train_rows": 17})  # fmt: skip


@pytest.mark.slow
def test_two_workers_end_where_one_does_whoever_runs_out_of_memory(script, experiment, tmp_path) -> None:
    (tmp_path / "experiment.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path / "experiment.yaml"), str(tmp_path)],
            env=os.environ
            | world
            | {"PYTHONPATH": os.pathsep.join(sys.path), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    one = script.train(experiment, tmp_path / "one", rank=0, num_workers=1)
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors.decode()[-3000:]
    ended = {
        name: [torch.load(tmp_path / name / f"ended_{rank}.pt", weights_only=True) for rank in range(2)]
        for name in script.RUNS
    }
    start = load_file(tmp_path / "one" / "checkpoint-3" / "model.safetensors")
    assert any(not torch.equal(start[name], weight) for name, weight in one["weights"].items())
    for name, both in ended.items():
        assert [each["num_oom"] for each in both] == [int(bool(script.RUNS[name][1]))] * 2
        for key, weight in both[0]["weights"].items():
            assert torch.equal(weight, both[1]["weights"][key]), (name, key)
        records = read_json_lines(tmp_path / name / "metrics.jsonl")
        for record, alone in zip(records, read_json_lines(tmp_path / "one" / "metrics.jsonl"), strict=True):
            for figure in ("loss", "grad_norm"):
                assert record.get(figure) == pytest.approx(alone.get(figure), rel=1e-5), (name, figure)
    # The step that was computed again is the step itself.
    for key, weight in ended["calm"][0]["weights"].items():
        assert torch.equal(weight, ended["short"][0]["weights"][key])
    for name, words in (("short", "the same step once more"), ("shrunk", "2 rows at once from here on")):
        for rank, where in ((0, "on another worker"), (1, "backward")):
            assert any(where in line and words in line for line in ended[name][rank]["told"])
        stats = list((tmp_path / name / "oom_stats").glob("*.json"))
        assert [path.stem.endswith("_worker-1") for path in stats] == [True]
