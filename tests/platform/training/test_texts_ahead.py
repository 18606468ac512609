"""Texts written ahead of a validation's loop belong to their rows, and nothing of them is lost or counted twice."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import torch

from dure.config import load_profile
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from tests.benchmarks.throughput import tokenizer
from tests.platform.modeling.test_decoding import VOCABULARY, model_of
from tests.platform.modeling.tiny_models import experiment_of
from trainables.summarization import Summarization

ROWS, BATCH = 21, 4


def test_predictions_of_a_validation_are_those_of_each_batch_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    inputs = [random.integers(3, VOCABULARY, length).tolist() for length in random.integers(2, 20, ROWS)]
    dataset = datasets.Dataset.from_dict(
        {
            "input_ids": inputs,
            "labels": [ids[: 1 + row % 5] for row, ids in enumerate(inputs)],
            "length": [len(ids) for ids in inputs],
            "reference": [""] * ROWS,
        }
    )
    model = model_of("t5", {"num_beams": 2, "repetition_penalty": 2.0})
    experiment = experiment_of(
        "t5", "none", training={"epochs": 1, "batch_size": BATCH}, task={"rouge_tokenizer": "character"}
    )
    made = ModelTrainer(
        Summarization(experiment), model, tokenizer(), dataset, dataset,
        profile=load_profile("cpu"), folder=RunFolder(tmp_path),
    )  # fmt: skip
    made.hf.compute_metrics = None
    alone = [made.hf.predict(made.eval_dataset.select([row])) for row in range(ROWS)]
    together = made.hf.predict(made.eval_dataset)
    assert len(together.predictions) == ROWS
    assert len({(ids != 1).sum() for ids in together.predictions}) > 2, "texts must end at several steps"
    for ids, single in zip(together.predictions, alone, strict=True):
        assert torch.equal(*(_text(each) for each in (ids, single.predictions[0])))
    losses = torch.tensor(made.hf.last_row_losses())
    assert len(losses) == ROWS
    torch.testing.assert_close(losses.mean().item(), together.metrics["test_loss"])


def _text(ids: np.ndarray) -> torch.Tensor:
    """Return what stands before the first token that ends a text, or before padding."""
    end = np.isin(ids[1:], [-100, 0, 1, *range(10, 16)]).nonzero()[0]
    return torch.from_numpy(ids[: 1 + end[0]] if len(end) else ids)
