"""Batches of conversations: padded row by row, or several rows in one sequence that do not see each other."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from dure.data.collating import Batch, Batches, Row, moved, padded
from dure.errors import UserError
from dure.modeling.objectives import IGNORED
from trainables.causal.likelihood import plain, with_numbers

Way = Literal["padded", "positions", "blocks"]
"""How rows are kept apart: each in a sequence of its own; by positions that begin anew; or by a mask as well."""

_PROBE = (16, 9, 7)
"""Tokens of the rows that a model is tried with; the last two share a sequence."""
_EXACT, _ROUNDED = 1e-4, 0.05
"""By how much of their size logits may differ in fp32, and in a shorter format."""


@dataclass(frozen=True)
class _Held:
    """The rows of a batch as they were, of which halves of it are made; no tensors, and so left where they are."""

    rows: Sequence[Row]


class Conversations(Batches):
    """Batches of rows with ``input_ids``, ``prompt_length`` and, where they have an answer, ``learned``.

    Packed rows fill sequences as long as the longest row, so that hardly anything is padding.

    Args:
        pad_token_id: Fills inputs; it is never looked at.
        way: How rows are kept apart.
        bool_mask: Whether a mask of blocks says yes and no, as SDPA wants it, or is added to scores.
    """

    def __init__(self, pad_token_id: int, way: Way = "padded", *, bool_mask: bool = True) -> None:
        self.pad_token_id, self.way, self.bool_mask = pad_token_id, way, bool_mask

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return one batch; prompts are of shape (rows, longest), inputs of shape (sequences, longest).

        Rows may be packs (:func:`packs_of`): each is a sequence then.
        """
        held = _Held(rows)
        if "members" in rows[0]:
            numbers = iter(range(sum(len(pack["members"]) for pack in rows)))
            bins = [[next(numbers) for _ in pack["members"]] for pack in rows]
            rows = [row for pack in rows for row in pack["members"]]
        texts = [row["input_ids"] for row in rows]
        if "members" not in held.rows[0]:
            longest = max(map(len, texts))
            bins = [[row] for row in range(len(rows))] if self.way == "padded" else packed(texts, longest)
        length = self.padded_length(max(sum(len(texts[row]) for row in members) for members in bins))
        ids = np.full((len(bins), length), self.pad_token_id)
        positions = np.zeros_like(ids)
        number = np.full_like(ids, -1)
        begins = [0] * len(rows)
        for sequence, members in enumerate(bins):
            end = 0
            for row in members:
                begin, end = end, end + len(texts[row])
                begins[row] = sequence * length + begin
                ids[sequence, begin:end] = texts[row]
                positions[sequence, begin:end] = np.arange(end - begin)
                number[sequence, begin:end] = row
            # What is left over is one more text, which nothing is learned of.
            positions[sequence, end:] = np.arange(length - end)
        batch: Batch = {}
        if "learned" in rows[0]:
            learned = [[t for b, e in row["learned"] for t in range(max(b, 1), e)] for row in rows]
            labels = [[text[t] for t in ts] for text, ts in zip(texts, learned, strict=True)]
            places = [[begin + t - 1 for t in ts] for begin, ts in zip(begins, learned, strict=True)]
            batch |= {"targets": padded(labels, IGNORED), "predicted_at": padded(places, 0)}
        prompts = [row["input_ids"][: row["prompt_length"]][::-1] for row in rows]
        return batch | {
            "input_ids": torch.from_numpy(ids),
            **self._kept_apart(torch.from_numpy(positions), torch.from_numpy(number)),
            # Padded at the left: turned around, padded, and turned around again.
            "prompt_ids": padded(prompts, self.pad_token_id).flip(1),
            "prompt_mask": padded([[1] * len(prompt) for prompt in prompts], 0).flip(1),
            "held": held,
        }

    def _kept_apart(self, positions: torch.Tensor, number: torch.Tensor) -> Batch:
        """Return what keeps rows apart, by the position of every token in its row, and its row or -1.

        Both are of shape (sequences, length).
        """
        if self.way == "padded":
            return {"attention_mask": (number >= 0).long()}
        if self.way == "positions":
            return {"position_ids": positions}
        sees = (number[:, :, None] == number[:, None, :]) & torch.ones(2 * [number.shape[1]]).tril().bool()
        mask = sees[:, None]
        if not self.bool_mask:
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
        return {"position_ids": positions, "attention_mask": mask}

    def positions(self, row: Row) -> tuple[int, ...]:
        """Return the length of a row, or of all rows of a pack."""
        return (self.padded_length(sum(len(each["input_ids"]) for each in row.get("members", [row]))),)

    def num_rows(self, batch: Batch) -> int:
        """Return the number of rows, be they in packs or not."""
        return sum(len(row.get("members", [row])) for row in batch["held"].rows)

    def split(self, batch: Batch) -> tuple[Batch, Batch] | None:
        """Make a batch of each half of the rows; of a pack alone, one of each half of its rows."""
        rows = batch["held"].rows
        is_pack = len(rows) == 1 and "members" in rows[0]
        parts = rows[0]["members"] if is_pack else rows
        half = -(-len(parts) // 2)
        if half == len(parts):
            return None
        first, second = (
            moved(self.collate([{"members": part}] if is_pack else part), batch["input_ids"].device)
            for part in (parts[:half], parts[half:])
        )
        return first, second

    def inputs(self, batch: Batch) -> Batch:
        """Return what the model reads, and which tokens of it are targets."""
        names = ("input_ids", "attention_mask", "position_ids", "targets", "predicted_at")
        return {name: batch[name] for name in names if name in batch}

    def prompts(self, batch: Batch) -> Batch:
        """Return the prompts alone, padded at the left."""
        return {"input_ids": batch["prompt_ids"], "attention_mask": batch["prompt_mask"]}

    def targets(self, batch: Batch) -> torch.Tensor | None:
        """Return the ids of target tokens, shape (rows, tokens)."""
        return batch.get("targets")


def packed(texts: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Return which rows share a sequence of some length: the longest first, each where it leaves the least room."""
    bins: list[list[int]] = []
    rooms: list[int] = []  # in order, each once; so that a row is placed without a look at every sequence
    having: defaultdict[int, list[int]] = defaultdict(list)
    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row])):
        tightest = bisect_left(rooms, len(texts[row]))
        if tightest == len(rooms):
            place, room = len(bins), length
            bins.append([])
        else:
            room = rooms[tightest]
            place = having[room].pop()
            if not having[room]:
                del rooms[tightest]
        bins[place].append(row)
        left = room - len(texts[row])
        if not having[left]:
            insort(rooms, left)
        having[left].append(place)
    return bins


def packs_of(train: datasets.Dataset, tokens: int) -> datasets.Dataset:
    """Return the rows of a table in packs of at most so many tokens, or one row that is longer.

    Returns:
        ``members``, the rows of a pack, and their ``length`` together.
    """
    lengths = np.asarray(train["length"][:])
    short = np.flatnonzero(lengths <= tokens)
    bins = [[row] for row in np.flatnonzero(lengths > tokens)]
    bins += [short[members].tolist() for members in packed([range(n) for n in lengths[short]], tokens)]
    order, ends = np.concatenate(bins), np.cumsum([0, *map(len, bins)])
    # As Arrow has them, since a million rows as objects of Python would fill the memory.
    rows = train.select_columns(["input_ids", "prompt_length", "learned"]).with_format("arrow")[:]
    members = rows.combine_chunks().take(order).to_struct_array().combine_chunks()
    packs = {
        "members": pa.ListArray.from_arrays(ends, members),
        "length": np.add.reduceat(lengths[order], ends[:-1]),
    }
    return datasets.Dataset(pa.table(packs))


def way_to_pack(model: PreTrainedModel | PeftModel) -> tuple[Way, bool]:
    """Find out by trying how rows of one sequence are kept apart in a model, and whether its mask says yes and no.

    Raises:
        UserError: They are not: what is read first changes what is predicted later, as in models with a state.
    """
    base = with_numbers(plain(model))
    bool_mask = base.config._attn_implementation == "sdpa"
    # A mask of blocks stands for that of every layer, so that windows would be forgotten.
    ways: tuple[Way, ...] = (
        ("positions",) if getattr(base.config, "sliding_window", None) else ("positions", "blocks")
    )
    for way in ways:
        if _difference(base, way, bool_mask) <= (_EXACT if base.dtype == torch.float32 else _ROUNDED):
            return way, bool_mask
    raise UserError(
        f"rows in one sequence see each other in {type(base).__name__}",
        where="task.packing",
        expected="false for this architecture",
        hint="task.packing=false",
    )


@torch.no_grad()
def _difference(model: PreTrainedModel, way: Way, bool_mask: bool) -> float:
    """Return how far logits of packed rows are from those of rows alone, as a part of their size; inf on an error."""
    vocabulary = model.get_input_embeddings().num_embeddings
    # Control tokens are among the first ids, and are no text.
    draw = np.random.default_rng(0)
    texts = [draw.integers(vocabulary // 2, vocabulary, length).tolist() for length in _PROBE]
    rows = [{"input_ids": text, "prompt_length": 1, "learned": [[1, len(text)]]} for text in texts]
    was_training = model.training
    model.eval()
    try:
        alone = torch.cat([_logits(model, Conversations(0), [row]) for row in rows])
        together = _logits(model, Conversations(0, way, bool_mask=bool_mask), rows)
    except (
        RuntimeError,
        ValueError,
        TypeError,
    ):  # Whatever an architecture raises that does not take such a mask.
        return float("inf")
    finally:
        model.train(was_training)
    return float((together - alone).norm() / alone.norm())


def _logits(model: PreTrainedModel, batches: Conversations, rows: Sequence[Row]) -> torch.Tensor:
    """Return the logits of all tokens but the last of every row, in the order of the rows."""
    batch = moved(batches.collate(rows), model.device)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    logits: torch.Tensor = model(**inputs, use_cache=False).logits.float()
    return logits.flatten(0, 1)[batch["predicted_at"][batch["targets"] != IGNORED]]
