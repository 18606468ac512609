"""`dure run`: a study of any kind from its YAML, continued, refused, and its record read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import dure
from dure.config import available

from .conftest import TINY, call

SMALL = (*TINY, "training.batch_size=4")


@pytest.mark.parametrize("name", available("study"))
def test_every_shipped_study_can_be_rehearsed(name, tmp_path):
    printed = call("run", name, "--rehearse", "--dry-run")
    assert printed.code == 0, printed.err
    study, *experiments = yaml.safe_load_all(printed.out)
    assert study["name"]
    assert all(each["rehearsal"]["enabled"] for each in experiments)
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_runs_as_train_would(tmp_path):
    shown = [call(verb, "transfer_bert", "--dry-run", "training.epochs=2").out for verb in ("run", "train")]
    assert shown[0] == shown[1] != ""


@pytest.mark.slow
def test_a_sweep_in_a_file_of_ones_own_runs_is_continued_and_read_back(tmp_path, ray_address):
    mine = {
        "kind": "sweep", "experiment": "transfer_bert", "sampler": "random", "num_trials": 1,
        "overrides": {"training": {"best_metric": "eval_loss", "higher_is_better": False}, "wandb.enabled": False},
    }  # fmt: skip
    Path("mine.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
    words = ("run", "mine.yaml", "--rehearse", "--profile", "cpu", "--output", "out", "--json",
             "--address", ray_address, *SMALL)  # fmt: skip
    first = call(*words)
    assert first.code == 0, first.err
    record = dure.read_results(Path("out"))
    assert record.as_json() == first.value
    assert (record.kind, record.study, record.metrics) == ("sweep", "transfer_bert-sweep", ("eval_loss",))

    # The same file goes on, by itself with nothing left to do; with another metric it is refused.
    more = call(*words, "--resume")
    assert more.code == 0, more.err
    assert [each["name"] for each in more.value["experiments"]] == ["trial_000"]
    Path("mine.yaml").write_text(yaml.safe_dump(mine | {"metrics": ["seconds"]}), encoding="utf-8")
    refused = call(*words, "--resume")
    assert refused.code == 2
    assert "'metrics' cannot change" in refused.err
    changed = call(*words[:2], *words[2:], "--resume", "training.weight_decay=0.5")
    assert changed.code == 2
    assert dure.read_results(Path("out")).as_json() == more.value
