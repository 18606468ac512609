"""One experiment gives the same numbers in this process, in a worker process and in two of them."""

from __future__ import annotations

import time

import pytest
import ray
from ray.util.placement_group import placement_group
from transformers import BertConfig, T5Config

from dure.errors import UserError
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.runtime.cluster import cluster
from dure.runtime.fit import fit, free_workers, held_by
from dure.training.run import RunRequest

TIMED = ("seconds", "_runtime", "_per_second")


def _numbers(path):
    return [
        {key: value for key, value in record.items() if not key.endswith(TIMED)}
        for record in read_json_lines(RunFolder(path).metrics)
    ]


@pytest.fixture(scope="module")
def ray_cluster(ray_address):
    with cluster(ray_address) as started:
        yield started


WITHOUT_DROPOUT = {
    "t5": T5Config(dropout_rate=0.0),
    "bert": BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
}
"""Dropout's random numbers cannot be the same ones in one process and in two."""


@pytest.mark.slow
def test_one_worker_process_gives_the_numbers_of_local_mode(tiny, cpu, tmp_path, ray_cluster):
    experiment = tiny("t5", "lora")
    local = fit(RunRequest(experiment, cpu, tmp_path / "local"))
    worker = fit(RunRequest(experiment, cpu, tmp_path / "worker"), in_process=False)
    assert local.state == worker.state == "completed"
    assert _numbers(tmp_path / "worker") == _numbers(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_local_mode_and_two_gloo_workers_agree(architecture, tiny, cpu, tmp_path, ray_cluster):
    WITHOUT_DROPOUT[architecture].save_pretrained(tmp_path / "checkpoint")
    experiment = tiny(architecture, "lora")
    experiment = experiment.model_copy(
        update={"model": experiment.model.model_copy(update={"checkpoint": str(tmp_path / "checkpoint")})}
    )
    two = cpu.model_copy(update={"num_workers": 2})
    local = fit(RunRequest(experiment, cpu, tmp_path / "local"))
    pair = fit(RunRequest(experiment, two, tmp_path / "pair"))
    assert local.state == pair.state == "completed"
    # Two workers with half the rows each: the same numbers but for the order of additions.
    ones, twos = _numbers(tmp_path / "local"), _numbers(tmp_path / "pair")
    assert len(ones) == len(twos)
    for one, two_ in zip(ones, twos, strict=True):
        assert one.keys() == two_.keys()
        for key in one:
            if key == "loss" or key.endswith("_loss"):
                assert two_[key] == pytest.approx(one[key], rel=1e-4), (key, one["step"])
    assert pair.metrics["num_dev_rows"] == 6


@pytest.mark.slow
def test_an_error_of_a_worker_arrives_as_it_was_raised(tiny, cpu, tmp_path, ray_cluster):
    experiment = tiny("t5", "lora")
    wrong = experiment.model_copy(
        update={"lora": experiment.lora.model_copy(update={"targets": ("nothing",)})}
    )
    with pytest.raises(UserError, match="nothing"):
        fit(RunRequest(wrong, cpu, tmp_path / "wrong"), in_process=False)
    assert RunFolder(tmp_path / "wrong").read_result().state == "failed"


def test_what_the_workers_of_a_killed_controller_held_is_given_back(tiny, cpu, tmp_path, ray_cluster):
    request = RunRequest(tiny("t5", "lora"), cpu, tmp_path / "run")
    before = ray.available_resources()["CPU"]
    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    held_by(request).parent.mkdir(parents=True)
    held_by(request).write_text(group.id.hex(), encoding="ascii")
    free_workers(request)
    free_workers(request)  # and once more: there is nothing to give back
    for _ in range(100):
        if ray.available_resources().get("CPU", 0) == before:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == before
    assert not held_by(request).exists()
