"""Rows that have ended leave the batch, and what is generated is what transformers' own ``generate`` gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dure.data.collating import padded
from dure.modeling.decoding import encoded, generate

from .tiny_models import build

VOCABULARY = 60
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limited": {"min_length": 6, "max_length": 20},
    "no_repeat": {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    "beams": {"num_beams": 3, "length_penalty": 0.7, "no_repeat_ngram_size": 3, "early_stopping": True},
    "beams_to_the_end": {"num_beams": 4, "early_stopping": False, "min_length": 5, "length_penalty": 1.5},
    "beams_exhausted": {"num_beams": 2, "early_stopping": "never", "length_penalty": -0.5},
    "looks_at_inputs": {"encoder_no_repeat_ngram_size": 2},
}


def model_of(kind: str, settings: dict[str, Any]) -> Any:
    model = build(kind, VOCABULARY).eval()
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    # Many tokens end a row, so that rows of random weights end at several steps.
    eos = [model.config.eos_token_id, *range(10, 16)]
    model.generation_config.update(**({"max_length": 24, "eos_token_id": eos} | settings))
    return model


def prompts_of(model: Any, rows: int = 12) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    texts = [
        torch.randint(3, VOCABULARY, (int(length),)).tolist() for length in torch.randint(2, 14, (rows,))
    ]
    ids = padded(texts, model.config.pad_token_id)
    return {"input_ids": ids, "attention_mask": padded([[1] * len(text) for text in texts], 0)}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_ids_are_those_of_transformers(kind: str, settings: str) -> None:
    model = model_of(kind, SETTINGS[settings])
    prompts = prompts_of(model)
    with torch.no_grad():
        expected = model.generate(**prompts)
        found = generate(model, prompts)
        shared = generate(model, prompts, encoder_outputs=encoded(model, prompts))
    assert torch.equal(found, expected)
    assert torch.equal(shared, expected)


@pytest.mark.parametrize("early", [True, False])
def test_rows_whose_beams_are_settled_are_not_computed(early: bool) -> None:
    ends = {"eos_token_id": [1, *range(10, 30)]}
    model = model_of("t5", {"num_beams": 3, "early_stopping": early, **ends})
    prompts = prompts_of(model, rows=20)
    computed = []
    model.get_decoder().register_forward_hook(
        lambda module, args, kwargs, output: computed.append(len(output.last_hidden_state)), with_kwargs=True
    )
    with torch.no_grad():
        expected = model.generate(**prompts)
        theirs, computed[:] = sum(computed), []
        found = generate(model, prompts)
    assert torch.equal(found, expected)
    assert computed == sorted(computed, reverse=True)
    assert sum(computed) < theirs


def test_rows_that_have_ended_are_not_computed() -> None:
    model = model_of("t5", {})
    prompts = prompts_of(model, rows=30)
    computed = []
    model.get_decoder().register_forward_hook(
        lambda module, args, kwargs, output: computed.append(len(output.last_hidden_state)), with_kwargs=True
    )
    with torch.no_grad():
        ids = generate(model, prompts)
    lengths = [int((row != model.config.pad_token_id).sum()) for row in ids]
    assert len(set(lengths)) > 2, "rows must end at several steps for this test to say anything"
    assert computed == sorted(computed, reverse=True)
    assert sum(computed) == sum(lengths)
