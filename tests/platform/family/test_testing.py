"""The contract of a family holds for toys that are nowhere in the engine, and finds what breaks it."""

from __future__ import annotations

import pytest
import torch

from dure.data.collating import Batches
from dure.errors import UserError
from dure.family import load_family
from dure.family.testing import check_family
from tests.platform.family import packed_toy, paired_toy

# A third, plain one is what the README shows the check with (tests/e2e/test_readme.py).
TOYS = [
    ("packed_toy", {"best_metric": "eval_loss", "task": {}}),
    ("paired_toy", {"best_metric": "eval_accuracy", "objective": {"r_drop": 0.5}}),
]


def experiment_of(tiny, toy, more=None):
    architecture = "llama" if toy == "packed_toy" else "bert"
    more = more or dict(TOYS)[toy]
    return tiny(architecture, "full", family=f"tests.platform.family.{toy}", **more)


@pytest.mark.parametrize(("toy", "more"), TOYS)
def test_a_toy_family_keeps_the_contract(toy, more, tiny, tmp_path) -> None:
    check_family(experiment_of(tiny, toy, more), tmp_path)


def cut_by_the_labels(self, batch):
    """What the engine once did by itself: tensors of as many rows as labels are cut, all others go with each piece."""
    rows = len(batch["labels"])
    half = -(-rows // 2)
    parts = [
        {name: value[part] if len(value) == rows else value for name, value in batch.items()}
        for part in (slice(half), slice(half, None))
    ]
    return tuple(parts) if half < rows else None


def test_pairs_that_a_split_pulls_apart_are_found(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paired_toy.Pairs, "split", cut_by_the_labels)
    with pytest.raises(AssertionError, match=r"for its pieces together|the gradient of"):
        check_family(experiment_of(tiny, "paired_toy"), tmp_path, runs=False)


def test_packed_rows_that_attend_to_each_other_are_found(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        packed_toy.Packed, "inputs", lambda self, batch: {"input_ids": batch["input_ids"], "use_cache": False}
    )
    with pytest.raises(AssertionError, match=r"for its pieces together|the gradient of"):
        check_family(experiment_of(tiny, "packed_toy"), tmp_path, runs=False)


def test_a_prompt_that_is_padded_at_the_wrong_side_is_found(tiny, tmp_path, monkeypatch) -> None:
    def at_the_right(self, batch):
        order = batch["prompt_mask"].argsort(dim=1, descending=True, stable=True)
        return {
            "input_ids": batch["prompt_ids"].gather(1, order),
            "attention_mask": batch["prompt_mask"].gather(1, order),
        }

    monkeypatch.setattr(packed_toy.Packed, "prompts", at_the_right)
    with pytest.raises(AssertionError, match="a row alone is predicted as"):
        check_family(experiment_of(tiny, "packed_toy"), tmp_path, runs=False)


def test_a_split_that_loses_a_row_is_found(tiny, tmp_path, monkeypatch) -> None:
    whole = paired_toy.Pairs.split

    def lossy(self: Batches, batch):
        halves = whole(self, batch)
        return None if halves is None else (halves[0], halves[0])

    monkeypatch.setattr(paired_toy.Pairs, "split", lossy)
    with pytest.raises(AssertionError, match="makes pieces of"):
        check_family(experiment_of(tiny, "paired_toy"), tmp_path, runs=False)


def test_a_parameter_in_no_module_is_found(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paired_toy.Preferring, "modules", lambda self, model: {"encoder": ("bert.",)})
    with pytest.raises(AssertionError, match=r"puts the parameter classifier\.weight into none"):
        check_family(experiment_of(tiny, "paired_toy"), tmp_path, runs=False)


def test_a_model_that_is_not_what_was_saved_is_found(tiny, tmp_path, monkeypatch) -> None:
    def without_training(self, folder):
        model, tokenizer = self.loaded(folder)
        torch.nn.init.zeros_(model.classifier.weight)
        return model, tokenizer

    monkeypatch.setattr(paired_toy.Preferring, "loaded", paired_toy.Preferring.load_exported, raising=False)
    monkeypatch.setattr(paired_toy.Preferring, "load_exported", without_training)
    with pytest.raises(AssertionError, match="logits of the saved model"):
        check_family(experiment_of(tiny, "paired_toy"), tmp_path, runs=False)


def test_a_figure_that_is_not_declared_is_found(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(paired_toy.Preferring, "baseline", lambda self, *rows: {"eval_luck": 0.5})
    with pytest.raises(AssertionError, match="eval_luck"):
        check_family(experiment_of(tiny, "paired_toy"), tmp_path, runs=False)


def test_a_family_that_lacks_a_method_is_told_which(tiny, tmp_path, monkeypatch) -> None:
    (tmp_path / "half_a_family.py").write_text(
        "from dure.family import Family\n\nclass Half(Family):\n    metrics = ()\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="defines 0 families") as caught:
        load_family(tiny("bert", "full", family="half_a_family"))
    assert "Half lacks batches, encode" in str(caught.value.hint)
