"""Batches: what rows become, and halves that hold every row once."""

from __future__ import annotations

import pickle

import pytest
import torch

from dure.data.collating import Batches, LabelRows, PaddedRows, TextPairs, pieces
from dure.errors import UserError

ROWS = [
    {"input_ids": [7] * length, "labels": length % 3, "length": length} for length in (5, 2, 4, 1, 3, 6, 2)
]


def test_rows_are_padded_at_the_right_to_the_longest_and_no_further() -> None:
    batches = PaddedRows(0)
    batches.multiple_of = 1
    batch = batches.collate(ROWS[:2])
    assert batch["input_ids"].tolist() == [[7] * 5, [7, 7, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [2, 2]
    batches.multiple_of = 8
    assert batches.collate(ROWS[:2])["input_ids"].shape == (2, 8)


def test_rows_without_targets_make_a_batch_without_them() -> None:
    batches = PaddedRows(0)
    batch = batches.collate([{"input_ids": [1, 2]}])
    assert batches.targets(batch) is None
    assert batches.inputs(batch).keys() == {"input_ids", "attention_mask"}


def test_the_model_never_sees_the_labels_and_generates_from_the_text_alone() -> None:
    batches = TextPairs(0, lambda labels: labels.clamp(min=0))
    batches.multiple_of = 1
    batch = batches.collate([{"input_ids": [1, 2], "labels": [3]}, {"input_ids": [1], "labels": [4, 5]}])
    assert batch["labels"].tolist() == [[3, -100], [4, 5]]
    assert batches.inputs(batch).keys() == {"input_ids", "attention_mask", "decoder_input_ids"}
    assert batches.prompts(batch).keys() == {"input_ids", "attention_mask"}


def test_processes_that_load_batches_get_no_model() -> None:
    # macOS starts such processes anew and sends them what they need; a lambda, or a model on a GPU, cannot be sent.
    batches = TextPairs(0, lambda labels: labels.clamp(min=0))
    rows = [{"input_ids": [1, 2], "labels": [3]}, {"input_ids": [1], "labels": [4, 5]}]
    collate = pickle.loads(pickle.dumps(batches.collate))  # noqa: S301 - its own
    for name, value in batches.collate(rows).items():
        torch.testing.assert_close(collate(rows)[name], value)
    assert batches.inputs(collate(rows))["decoder_input_ids"].shape == (2, collate(rows)["labels"].shape[1])


@pytest.mark.parametrize("rows", range(1, 8))
def test_pieces_are_the_rows_in_their_order_each_once(rows) -> None:
    batches = LabelRows(0, 3)
    batch = batches.collate([row | {"labels": [row["labels"]]} for row in ROWS])
    cut = list(pieces(batches, batch, rows))
    assert all(1 <= batches.num_rows(piece) <= rows for piece in cut)
    for name, value in batch.items():
        torch.testing.assert_close(torch.cat([piece[name] for piece in cut]), value)
    assert len(cut) == 1 or rows < len(ROWS)


def test_one_row_is_not_split() -> None:
    batches = PaddedRows(0)
    assert batches.split(batches.collate(ROWS[:1])) is None


def test_twice_is_all_rows_and_then_all_rows_again() -> None:
    batches = PaddedRows(0)
    batch = batches.collate(ROWS[:3])
    for name, value in batches.twice(batch).items():
        torch.testing.assert_close(value, torch.cat([batch[name], batch[name]]))


def test_a_family_that_cannot_hold_rows_twice_names_the_option() -> None:
    class Once(Batches):
        def collate(self, rows):
            return {"input_ids": torch.zeros(len(rows), 1)}

        def num_rows(self, batch):
            return len(batch["input_ids"])

        def split(self, batch):
            return None

    with pytest.raises(UserError) as caught:
        Once().twice(Once().collate(ROWS))
    assert caught.value.where == "objective.r_drop"
