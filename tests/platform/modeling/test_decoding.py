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
