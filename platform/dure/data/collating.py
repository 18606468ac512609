"""Padding encoded rows into one batch, to the longest of them and no further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def padded(rows: Sequence[Sequence[int]], value: int, *, multiple_of: int = 1) -> torch.Tensor:
    """Return rows of ids as one tensor of shape (rows, longest), filled up at the right with ``value``.

    Args:
        rows: Ids of every row.
        value: What the filling is.
        multiple_of: Round the length up to a multiple, which tensor cores like.
    """
    longest = max(len(row) for row in rows)
    longest = -(-longest // multiple_of) * multiple_of
    batch = np.full((len(rows), longest), value, dtype=np.int64)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
    return torch.from_numpy(batch)


class Seq2SeqCollator:
    """Makes batches of ``input_ids``, ``attention_mask`` and, when the rows have them, ``labels``.

    Args:
        pad_token_id: Fills inputs; padding of labels is -100, which losses ignore.
        decoder_input_ids: Turns labels into the decoder's input; the model's own
            ``prepare_decoder_input_ids_from_labels``.
        multiple_of: Lengths are rounded up to a multiple of it.
    """

    def __init__(
        self,
        pad_token_id: int,
        decoder_input_ids: Callable[[torch.Tensor], torch.Tensor],
        *,
        multiple_of: int = 1,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.decoder_input_ids = decoder_input_ids
        self.multiple_of = multiple_of

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return one batch; tensors of shape (rows, longest)."""
        batch = _inputs(rows, self.pad_token_id, self.multiple_of)
        if "labels" in rows[0]:
            batch["labels"] = padded([row["labels"] for row in rows], -100, multiple_of=self.multiple_of)
            batch["decoder_input_ids"] = self.decoder_input_ids(batch["labels"])
        return batch


class ClassificationCollator:
    """Makes batches of ``input_ids``, ``attention_mask`` and, when the rows have them, ``labels``.

    Args:
        pad_token_id: Fills inputs.
        multiple_of: Lengths are rounded up to a multiple of it.
    """

    def __init__(self, pad_token_id: int, *, multiple_of: int = 1) -> None:
        self.pad_token_id = pad_token_id
        self.multiple_of = multiple_of

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return one batch; inputs of shape (rows, longest), labels of shape (rows,)."""
        batch = _inputs(rows, self.pad_token_id, self.multiple_of)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows], dtype=torch.int64)
        return batch


class LabelsCollator:
    """Makes batches of ``input_ids``, ``attention_mask`` and, when the rows have them, ``labels``.

    Args:
        pad_token_id: Fills inputs.
        num_labels: Number of labels that a row may have.
        multiple_of: Lengths are rounded up to a multiple of it.
    """

    def __init__(self, pad_token_id: int, num_labels: int, *, multiple_of: int = 1) -> None:
        self.pad_token_id = pad_token_id
        self.num_labels = num_labels
        self.multiple_of = multiple_of

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return one batch; inputs of shape (rows, longest), labels (1 where a row has one) of (rows, labels)."""
        batch = _inputs(rows, self.pad_token_id, self.multiple_of)
        if "labels" in rows[0]:
            labels = multi_hot([row["labels"] for row in rows], self.num_labels)
            batch["labels"] = torch.from_numpy(labels.astype(np.float32))
        return batch


def multi_hot(rows: Sequence[Sequence[int]], num_labels: int) -> NDArray[np.bool_]:
    """Return which labels every row has: shape (rows, labels)."""
    table = np.zeros((len(rows), num_labels), dtype=np.bool_)
    for place, labels in enumerate(rows):
        table[place, list(labels)] = True
    return table


def _inputs(rows: Sequence[dict[str, Any]], pad_token_id: int, multiple_of: int) -> dict[str, torch.Tensor]:
    inputs = [row["input_ids"] for row in rows]
    return {
        "input_ids": padded(inputs, pad_token_id, multiple_of=multiple_of),
        "attention_mask": padded([[1] * len(row) for row in inputs], 0, multiple_of=multiple_of),
    }
