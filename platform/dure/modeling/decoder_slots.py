"""The rows that a decoder computes at once, where waiting rows take the places of those that have ended.

All beams of a row look at the same keys and values of what the encoder read. transformers repeats them beam by beam; here
they exist once, and the queries of the beams stand side by side, as those of several positions would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput

from dure.modeling.cohorts import Asked, BeamSearch, Cohort, Greedy
from dure.modeling.replaced import replaced

BATCHES_AT_ONCE = 2
"""How many batches of rows are written at once: a step over few rows takes nearly as long as one over twice as many.

What was read is kept once for all beams of a row, so that with beams both hold less than one does in transformers.
"""
_SHARED, _NEEDED = "sdpa_shared_by_beams", "sdpa"
"""What lets queries of more rows attend than there are rows of keys, and what it takes the place of."""
_WORTH_A_START = 0.5
"""Share of all slots that must be free before waiting rows begin: each start is a step of its own."""


def can_share(model: PreTrainedModel) -> bool:
    """Return whether the attention of a model is one that can be told apart here."""
    return bool(model.get_decoder().config._attn_implementation == _NEEDED)


class DecoderSlots:
    """Cohorts that a decoder computes in one pass.

    The newest tokens of all rows share the last place of the cache, so that shorter texts have unused places before them.
    """

    def __init__(self, asked: Asked, rows: slice) -> None:
        self.model = asked.model
        many = (asked.config.num_beams or 1) > 1
        self.cohorts: list[Cohort] = [BeamSearch(asked, rows) if many else Greedy(asked, rows)]
        self._states, self._mask = asked.states[rows], asked.mask[rows, None, None].bool()
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._unused = asked.start.new_zeros(self.num_rows * self.cohorts[0].beams)

    @property
    def num_rows(self) -> int:
        """How many rows are written."""
        return sum(len(cohort.places) for cohort in self.cohorts)

    @property
    def _length(self) -> int:
        return max(cohort.length for cohort in self.cohorts)

    @torch.no_grad()
    def step(self) -> None:
        """Put one more token to every row, and let those go that have ended."""
        length, model = self._length, self.model
        mask = None
        if any(cohort.length < length for cohort in self.cohorts):
            mask = (torch.arange(length, device=self._unused.device) >= self._unused[:, None])[:, None, None]
        shared = replaced(model.get_decoder().config, "_attn_implementation", _SHARED)
        with shared, _own_positions(model, None if mask is None else length - 1 - self._unused):
            outputs = model(
                decoder_input_ids=torch.cat([cohort.last_tokens() for cohort in self.cohorts]),
                decoder_attention_mask=mask,
                encoder_outputs=BaseModelOutput(last_hidden_state=self._states),
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
                return_dict=True,
            )
        self._states = self._states[:1, :1]  # The cache has what is needed of them.
        self._choose(outputs.logits[:, -1].float())

    def _choose(self, logits: torch.Tensor) -> None:
        came_from, stays, begin = [], [], 0
        parts = torch.split(logits, [len(cohort.places) * cohort.beams for cohort in self.cohorts])
        is_moved = is_shorter = False
        for cohort, part in zip(self.cohorts, parts, strict=True):
            rows = len(cohort.places)
            chosen, on = cohort.advance(part)
            is_moved, is_shorter = is_moved or chosen is not None, is_shorter or on is not None
            came_from.append(_places(chosen, rows * cohort.beams, begin * cohort.beams, logits.device))
            stays.append(_places(on, rows, begin, logits.device))
            begin += rows
        self.cohorts = [cohort for cohort in self.cohorts if cohort.places]
        if not self.cohorts:
            return
        if is_moved:
            self._cache.self_attention_cache.reorder_cache(torch.cat(came_from))
            self._unused = self._unused[torch.cat(came_from)]
        if is_shorter:
            self._leave(torch.cat(stays))

    def _leave(self, stays: torch.Tensor) -> None:
        """Keep what belongs to some rows, and no place that none of them uses."""
        self._mask = self._mask[stays]
        used = int(self._mask.any(dim=0).nonzero().max()) + 1
        self._mask = self._mask[..., :used]
        for layer in self._cache.cross_attention_cache.layers:
            layer.keys, layer.values = layer.keys[stays, :, :used], layer.values[stays, :, :used]
        cached = self._length - 1
        for layer in self._cache.self_attention_cache.layers:
            layer.keys, layer.values = layer.keys[:, :, -cached:], layer.values[:, :, -cached:]
        self._unused = self._unused - self._unused.min()

    def join(self, other: DecoderSlots) -> None:
        """Take in rows of others, which are not to be used any more."""
        lengths = [each._length - 1 for each in (self, other)]
        _extend(self._cache.self_attention_cache, other._cache.self_attention_cache, lengths, at_end=False)
        both = [each._unused + max(lengths) - own for each, own in zip((self, other), lengths, strict=True)]
        self._unused = torch.cat(both)
        widths = [each._mask.shape[-1] for each in (self, other)]
        _extend(self._cache.cross_attention_cache, other._cache.cross_attention_cache, widths, at_end=True)
        masks = [
            pad(each._mask, (0, max(widths) - own)) for each, own in zip((self, other), widths, strict=True)
        ]
        self._mask = torch.cat(masks)
        self.cohorts += other.cohorts


def written(batches: Iterable[Asked | torch.Tensor]) -> Iterator[torch.Tensor]:
    """Write the texts of batches, and give their ids batch by batch, in their order; what is written passes through.

    There are never more rows at once than ``BATCHES_AT_ONCE`` of the largest batch have, and one batch at most waits.

    Raises:
        ValueError: One is written already while another is not: a model writes all of them in one way.
    """
    source = iter(batches)
    unfinished: deque[Asked] = deque()
    slots: DecoderSlots | None = None
    num_slots, is_over = 0, False
    while True:
        while not is_over and not (unfinished and unfinished[-1].waiting):
            batch = next(source, None)
            is_over = batch is None
            if isinstance(batch, torch.Tensor):
                if unfinished:
                    raise ValueError(
                        "this batch is written already, and would come before those that are not"
                    )
                yield batch
            elif batch is not None:
                unfinished.append(batch)
                num_slots = max(num_slots, BATCHES_AT_ONCE * batch.rows)
        if not unfinished:
            return
        slots = _advanced(slots, unfinished[-1], num_slots)
        while unfinished and (ids := unfinished[0].ids()) is not None:
            unfinished.popleft()
            yield ids


def _advanced(slots: DecoderSlots | None, newest: Asked, num_slots: int) -> DecoderSlots | None:
    """Begin waiting rows if enough slots are free, or write a token; returns None when no row is left."""
    free = num_slots - (slots.num_rows if slots else 0)
    is_worth = slots is None or (_may_join(newest.model) and free >= num_slots * _WORTH_A_START)
    if newest.waiting and is_worth:
        begun = DecoderSlots(newest, newest.begin(free))
        begun.step()
        if slots is not None and begun.cohorts:
            slots.join(begun)
        slots = slots or begun
    elif slots is not None:
        slots.step()
    return slots if slots is not None and slots.cohorts else None


def _places(chosen: torch.Tensor | None, number: int, begin: int, device: torch.device) -> torch.Tensor:
    """Return places within a part as places within the whole; all of them where none was chosen."""
    return begin + (torch.arange(number, device=device) if chosen is None else chosen)


def _extend(cache: DynamicCache, other: DynamicCache, sizes: list[int], *, at_end: bool) -> None:
    """Put the rows of another cache after those of a cache, with unused places where one has fewer."""
    missing = [max(sizes) - size for size in sizes]
    for ours, theirs in zip(cache.layers, other.layers, strict=True):
        for name in ("keys", "values"):
            both = zip((ours, theirs), missing, strict=True)
            parts = [
                pad(getattr(layer, name), (0, 0, 0, more) if at_end else (0, 0, more, 0))
                for layer, more in both
            ]
            setattr(ours, name, torch.cat(parts))


def _may_join(model: Any) -> bool:
    """Return whether rows of several lengths can be computed at once: places are relative, or can be told."""
    decoder = model.get_decoder()
    table = getattr(decoder, "embed_positions", None)
    if table is None:
        return hasattr(decoder.config, "relative_attention_num_buckets")
    return "position_ids" in signature(table.forward).parameters


@contextmanager
def _own_positions(model: Any, positions: torch.Tensor | None) -> Iterator[None]:
    """Give every row the embedding of its own position, shape (rows,), where a decoder has a table of them."""
    table = getattr(model.get_decoder(), "embed_positions", None)
    if table is None or positions is None:
        yield
        return
    hooks = [
        table.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "position_ids": positions}), with_kwargs=True
        ),
        table.register_forward_hook(lambda module, args, output: output.reshape(len(positions), 1, -1)),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers does with ``sdpa``, from queries of shape (rows * beams, heads, 1, width).

    Keys and values are of shape (rows * beams, heads, positions, width), or without the beams, for all of which the mask
    holds: (rows, 1, 1, positions).
    """
    beams = len(query) // len(key)
    if beams > 1:
        query = query.view(len(key), beams, *query.shape[1:]).squeeze(3).transpose(1, 2)
    found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return (found.flatten(0, 1).unsqueeze(1) if beams > 1 else found), None


AttentionInterface.register(_SHARED, _attention)
AttentionMaskInterface.register(_SHARED, sdpa_mask)
