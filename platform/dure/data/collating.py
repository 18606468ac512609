"""Batches: how encoded rows become tensors, what of a batch the model reads, and how a batch is halved.

A row is one row of the encoded table, and never split: a text, a text with its summary, a pair of answers. How the
tensors of a batch hold rows is the batches' own affair. They may be padded row by row (:class:`PaddedRows`), packed
into sequences that hold several rows, or hold two sequences for each row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute
import torch
from numpy.typing import NDArray

from dure.data.batching import Targets
from dure.errors import UserError

if TYPE_CHECKING:
    import datasets

Row = Mapping[str, Any]
"""An encoded row: feature → value."""
Batch = dict[str, Any]
"""The tensors of some rows by name; the trainer moves them to the device."""


class Batches(ABC):
    """How the rows of a family become batches; made for one tokenizer and model.

    Training calls :meth:`collate` for every micro-batch, the model with :meth:`inputs`, and the family's objective
    with :meth:`targets`. With ``training.num_data_workers`` other processes collate, so that batches pickle. When memory does not suffice it calls :meth:`split`, and then the same for each half. What
    each micro-batch counts for in the loss of the whole step is the objective's own (``Objective.count``).
    """

    @cached_property
    def multiple_of(self) -> int:
        """What padded lengths are rounded up to a multiple of: 8 on CUDA; training raises it where it compiles."""
        return 8 if torch.cuda.is_available() else 1

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return the batch of some encoded rows, which lack targets where the table to predict has none."""

    @abstractmethod
    def num_rows(self, batch: Batch) -> int:
        """Return the number of rows in a batch."""

    @abstractmethod
    def split(self, batch: Batch) -> tuple[Batch, Batch] | None:
        """Return a batch as two of about half its rows each, in their order; None when it has one row.

        The two together must have the losses and the gradients of the whole: nothing that belongs to a row may be
        in another half, or in both.
        """

    def positions(self, row: Row) -> tuple[int, ...]:
        """Return how many positions a row takes in each tensor that is padded to the longest row of a batch."""
        return (self.padded_length(len(row["input_ids"])),)

    def padded_length(self, length: int) -> int:
        """Return the length of a tensor whose longest row has so many tokens."""
        return -(-length // self.multiple_of) * self.multiple_of

    def twice(self, batch: Batch) -> Batch:
        """Return a batch with every row twice: the logits of all rows, then those of all rows again.

        Raises:
            UserError: There is no such batch, so that R-Drop is not for this family.
        """
        raise UserError(
            "R-Drop reads every row twice, which this family's batches do not support",
            where="objective.r_drop",
            expected="0",
        )

    def inputs(self, batch: Batch) -> Batch:
        """Return the arguments of the model's forward pass."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def prompts(self, batch: Batch) -> Batch:
        """Return the arguments of the model's ``generate``; a decoder-only model wants them padded at the left."""
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def targets_of(self, rows: datasets.Dataset) -> Targets | None:
        """Return how long the target of every row is, where a model writes it token by token; None elsewhere."""
        return None

    def targets(self, batch: Batch) -> Any:
        """Return what the objective compares the logits with, or None when the rows have no targets."""
        return batch.get("labels")


def pieces(batches: Batches, batch: Batch, rows: int) -> Iterator[Batch]:
    """Halve a batch until no piece has more than ``rows`` rows; give the pieces in their order."""
    halves = batches.split(batch) if batches.num_rows(batch) > rows else None
    if halves is None:
        yield batch
        return
    for half in halves:
        yield from pieces(batches, half, rows)


def cut(batches: Batches, rows: Sequence[Row], num_tokens: int) -> list[list[Row]]:
    """Cut rows, the longest first, into runs whose batches have at most so many positions, padding included.

    A row that has more by itself is a run of its own.
    """
    runs: list[list[Row]] = []
    longest: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    sized = [(np.asarray(batches.positions(row)), row) for row in rows]
    for size, row in sorted(sized, key=lambda each: -int(each[0].sum())):
        grown = np.maximum(longest, size) if runs else size
        if runs and (len(runs[-1]) + 1) * int(grown.sum()) <= num_tokens:
            runs[-1].append(row)
            longest = grown
        else:
            runs.append([row])
            longest = size
    return runs


def collate_runs(batches: Batches, num_tokens: int, rows: Sequence[Row]) -> list[Batch]:
    """Collate all rows of an optimiser step of one worker into its micro-batches, which :func:`cut` makes."""
    return [batches.collate(run) for run in cut(batches, rows, num_tokens)]


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on a device."""
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
    }


class PaddedRows(Batches):
    """Batches of ``input_ids``, ``attention_mask`` and, when the rows have them, ``labels``.

    Every row is padded to the longest one of its batch. The first dimension of every tensor is the row.
    ``pad_token_id`` fills inputs.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return one batch; inputs are of shape (rows, longest)."""
        inputs = [row["input_ids"] for row in rows]
        batch = {
            "input_ids": padded(inputs, self.pad_token_id, multiple_of=self.multiple_of),
            "attention_mask": padded([[1] * len(row) for row in inputs], 0, multiple_of=self.multiple_of),
        }
        return batch | (self.labels([row["labels"] for row in rows]) if "labels" in rows[0] else {})

    def labels(self, values: Sequence[Any]) -> Batch:
        """Return the tensors that are made of the rows' ``labels``: here one of the classes or numbers that these are."""
        return {"labels": torch.tensor(values)}

    def num_rows(self, batch: Batch) -> int:
        """Return the length of the first dimension."""
        return len(batch["input_ids"])

    def split(self, batch: Batch) -> tuple[Batch, Batch] | None:
        """Cut every tensor along its first dimension; the first half is larger by one row when they are odd."""
        half = -(-self.num_rows(batch) // 2)
        if half == self.num_rows(batch):
            return None
        first = {name: value[:half] for name, value in batch.items()}
        return first, {name: value[half:] for name, value in batch.items()}

    def twice(self, batch: Batch) -> Batch:
        """Put every tensor after itself along its first dimension."""
        return {name: torch.cat([value, value]) for name, value in batch.items()}


class TextPairs(PaddedRows):
    """Padded rows whose labels are the ids of a target text, for an encoder–decoder; losses ignore their padding, -100.

    Args:
        decoder_input_ids: Turns labels into the decoder's input; the model's own
            ``prepare_decoder_input_ids_from_labels``.
        target_cost: What a position of a target costs to compute, where one of an input costs 1.
    """

    def __init__(
        self,
        pad_token_id: int,
        decoder_input_ids: Callable[[torch.Tensor], torch.Tensor],
        target_cost: float = 1.0,
    ) -> None:
        super().__init__(pad_token_id)
        self.decoder_input_ids = decoder_input_ids
        self.target_cost = target_cost

    def positions(self, row: Row) -> tuple[int, ...]:
        """Return the lengths of the text and of its target."""
        return self.padded_length(len(row["input_ids"])), self.padded_length(len(row["labels"]))

    def targets_of(self, rows: datasets.Dataset) -> Targets:
        """Return the lengths of the labels."""
        labels = rows.select_columns("labels").with_format("arrow")[:]["labels"]
        return Targets(pyarrow.compute.list_value_length(labels).to_numpy(), self.target_cost)

    def labels(self, values: Sequence[Sequence[int]]) -> Batch:
        """Return labels of shape (rows, longest)."""
        return {"labels": padded(values, -100, multiple_of=self.multiple_of)}

    def inputs(self, batch: Batch) -> Batch:
        """Return the text and, where the rows have targets, the decoder's input, of the shape of the labels."""
        read = super().inputs(batch)
        return (
            read | {"decoder_input_ids": self.decoder_input_ids(batch["labels"])}
            if "labels" in batch
            else read
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out of what processes get that load batches."""
        return {**self.__dict__, "decoder_input_ids": None}


class LabelRows(PaddedRows):
    """Padded rows that may have any of some labels."""

    def __init__(self, pad_token_id: int, num_labels: int) -> None:
        super().__init__(pad_token_id)
        self.num_labels = num_labels

    def labels(self, values: Sequence[Sequence[int]]) -> Batch:
        """Return labels of shape (rows, labels), 1 where a row has one."""
        labels = multi_hot(values, self.num_labels)
        return {"labels": torch.from_numpy(labels.astype(np.float32))}


def padded(rows: Sequence[Sequence[int]], value: int, *, multiple_of: int = 1) -> torch.Tensor:
    """Return rows of ids as one tensor of shape (rows, longest), filled up at the right with ``value``.

    The length is rounded up to a multiple, which tensor cores like.
    """
    longest = max(len(row) for row in rows)
    longest = -(-longest // multiple_of) * multiple_of
    batch = np.full((len(rows), longest), value, dtype=np.int64)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
    return torch.from_numpy(batch)


def multi_hot(rows: Sequence[Sequence[int]], num_labels: int) -> NDArray[np.bool_]:
    """Return which labels every row has: shape (rows, labels)."""
    table = np.zeros((len(rows), num_labels), dtype=np.bool_)
    for place, labels in enumerate(rows):
        table[place, list(labels)] = True
    return table
