"""Generating with an encoder–decoder: the encoder runs once, and rows that have ended are not computed further."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.modeling_outputs import BaseModelOutput

from dure.modeling.beams import BeamSearch

_ROW_BY_ROW = (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
"""What may change scores while rows leave: these look at what a row has written, and know nothing of its place."""


def encoded(model: PreTrainedModel, prompts: dict[str, Any]) -> BaseModelOutput:
    """Return what the encoder of a model makes of prompts, for its loss and for :func:`generate` alike."""
    states = model.get_encoder()(**prompts, return_dict=True).last_hidden_state
    return BaseModelOutput(last_hidden_state=states.to(model.dtype))


def generate(model: PreTrainedModel, prompts: dict[str, Any], **options: Any) -> torch.Tensor:
    """Return the ids that ``model.generate`` gives, shape (rows, length), computing less where it can.

    Args:
        model: The model; its ``generation_config`` says how it generates.
        prompts: What it reads.
        options: More for ``model.generate``, such as ``encoder_outputs``.
    """
    config = model.generation_config
    is_plain = (
        model.config.is_encoder_decoder and not config.do_sample and (config.num_return_sequences or 1) == 1
    )
    if is_plain and not options.get("synced_gpus"):
        options["custom_generate"] = _by_rows
    ids: torch.Tensor = model.generate(**prompts, **options)
    return ids


def _by_rows(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Generate greedily or with beams, as transformers does where rows cannot leave."""
    beams = generation_config.num_beams or 1
    can_leave = all(isinstance(each, _ROW_BY_ROW) for each in logits_processor) and kwargs.get("use_cache")
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
    if beams > 1:
        search = BeamSearch(model, input_ids, generation_config, stopping_criteria)
        return search.search(input_ids, logits_processor, kwargs, _of_rows)
    return _greedy(model, input_ids, logits_processor, stopping_criteria, generation_config, kwargs)


def _greedy(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """Take the likeliest token of every row, as transformers' ``_sample`` does, until the row has ended."""
    places = torch.arange(len(input_ids), device=input_ids.device)
    ended: list[tuple[torch.Tensor, torch.Tensor]] = []
    outputs = model._prefill(input_ids, generation_config, kwargs, is_first_iteration=True)
    while True:
        kwargs = model._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=True)
        scores = logits_processor(input_ids, outputs.logits[:, -1].float())
        input_ids = torch.cat([input_ids, scores.argmax(dim=-1, keepdim=True)], dim=-1)
        ends = stopping_criteria(input_ids, None)
        if ends.any():
            ended.append((places[ends], input_ids[ends]))
            stays = (~ends).nonzero().squeeze(1)
            if not len(stays):
                break
            kwargs = _of_rows(kwargs, stays, len(input_ids))
            places, input_ids = places[stays], input_ids[stays]
        read = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **kwargs)
        outputs = model(**read, return_dict=True)
    pad = getattr(generation_config, "_pad_token_tensor", None)
    filled = 0 if pad is None else int(pad)
    whole = input_ids.new_full((sum(len(rows) for rows, _ in ended), ended[-1][1].shape[1]), filled)
    for rows, ids in ended:
        whole[rows, : ids.shape[1]] = ids
    return whole


def _of_rows(kwargs: dict[str, Any], rows: torch.Tensor, num_rows: int) -> dict[str, Any]:
    """Return what the next step takes, of some rows."""
    kwargs["past_key_values"].batch_select_indices(rows)
    states = kwargs["encoder_outputs"].last_hidden_state
    return {
        name: value[rows] if isinstance(value, torch.Tensor) and value.shape[:1] == (num_rows,) else value
        for name, value in kwargs.items()
    } | {"encoder_outputs": BaseModelOutput(last_hidden_state=states[rows])}
