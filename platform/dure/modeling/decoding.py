"""Generating with an encoder–decoder: the encoder runs once, and waiting rows take the places of those that have ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from transformers import LogitsProcessorList, PreTrainedModel, StoppingCriteriaList, generation
from transformers.modeling_outputs import BaseModelOutput

from dure.modeling.cohorts import Asked
from dure.modeling.decoder_slots import can_share, written

T = TypeVar("T")
_ROW_BY_ROW = (
    generation.ForcedBOSTokenLogitsProcessor,
    generation.ForcedEOSTokenLogitsProcessor,
    generation.MinLengthLogitsProcessor,
    generation.MinNewTokensLengthLogitsProcessor,
    generation.NoBadWordsLogitsProcessor,
    generation.NoRepeatNGramLogitsProcessor,
    generation.RepetitionPenaltyLogitsProcessor,
    generation.SuppressTokensLogitsProcessor,
)
"""What may change scores while rows leave: these look at what a row has written, and know nothing of its place."""


def encoded(model: PreTrainedModel, prompts: dict[str, Any]) -> BaseModelOutput:
    """Return what the encoder of a model makes of prompts, for its loss and its texts alike."""
    states = model.get_encoder()(**prompts, return_dict=True).last_hidden_state
    return BaseModelOutput(last_hidden_state=states.to(model.dtype))


def generate_all(
    model: PreTrainedModel,
    batches: Iterable[T],
    asks: Callable[[T], dict[str, Any]],
    within: Callable[[], AbstractContextManager[Any]] = torch.no_grad,
) -> Iterator[tuple[T, torch.Tensor]]:
    """Give each batch with the ids that ``model.generate`` gives; rows of the next one begin when rows have ended.

    Batches are given back in their order; some more are taken than were given back. ``asks`` returns what
    ``model.generate`` takes for a batch; all ask for the same but for the rows. ``within`` makes the context in which
    everything is computed, which is not left open between two batches.
    """
    taken: deque[T] = deque()

    def asked() -> Iterator[Asked | torch.Tensor]:
        for batch in batches:
            taken.append(batch)
            yield _asked(model, asks(batch))

    found = written(asked())
    while True:
        with within():
            ids = next(found, None)
        if ids is None:
            return
        yield taken.popleft(), ids


def _asked(model: PreTrainedModel, batch: dict[str, Any]) -> Asked | torch.Tensor:
    """Return what is to be written for a batch; or its ids, where rows cannot leave and transformers has written them."""
    config = model.generation_config
    is_plain = (
        model.config.is_encoder_decoder and not config.do_sample and (config.num_return_sequences or 1) == 1
    )
    prepared: list[Asked] = []
    if is_plain and not batch.get("synced_gpus"):
        batch = {**batch, "custom_generate": partial(_prepared, into=prepared)}
    ids: torch.Tensor = model.generate(**batch)
    return prepared[0] if prepared else ids


def _prepared(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    into: list[Asked],
    **kwargs: Any,
) -> torch.Tensor:
    """Keep what transformers has prepared for greedy search or beams, or write it where rows cannot leave."""
    beams = generation_config.num_beams or 1
    can_leave = (
        all(isinstance(each, _ROW_BY_ROW) for each in logits_processor)
        and kwargs.get("use_cache")
        and kwargs.get("decoder_attention_mask") is None
        and input_ids.shape[1] == 1
        and can_share(model)
    )
    if not can_leave:
        theirs = model._sample if beams == 1 else model._beam_search
        ids: torch.Tensor = theirs(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **kwargs,
        )
        return ids
    eos, pad = generation_config._eos_token_tensor, generation_config._pad_token_tensor
    fill = 0 if pad is None else pad
    if beams > 1:  # Where the token that pads is 0, transformers fills up with the one that ends.
        fill = -1 if eos is None else pad or eos[0]
    into.append(
        Asked(
            model=model,
            start=input_ids,
            states=kwargs["encoder_outputs"].last_hidden_state[::beams],
            mask=kwargs["attention_mask"][::beams],
            processors=logits_processor,
            stopping=stopping_criteria,
            config=generation_config,
            fill=int(fill),
        )
    )
    return input_ids
