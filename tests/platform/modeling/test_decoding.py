"""Rows that have ended give their places to waiting ones, and ids are those of transformers' own ``generate``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from dure.data.collating import padded
from dure.modeling.decoder_slots import BATCHES_AT_ONCE
from dure.modeling.decoding import encoded, generate_all

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


def generate(model: Any, prompts: dict[str, Any], **options: Any) -> torch.Tensor:
    ((_, ids),) = generate_all(model, [prompts], lambda asked: asked | options)
    return ids


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


def decoded_rows(model: Any) -> list[int]:
    """Return a list that gets the number of texts of every pass of the decoder."""
    computed: list[int] = []
    model.get_decoder().register_forward_hook(
        lambda module, args, kwargs, output: computed.append(len(output.last_hidden_state)), with_kwargs=True
    )
    return computed


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["mt5", "bart"])
def test_ids_are_those_of_transformers_where_waiting_rows_enter(kind: str, settings: str) -> None:
    model = model_of(kind, SETTINGS[settings])
    whole = prompts_of(model, rows=30)
    cuts = [0, 5, 10, 15, 20, 23, 30]
    batches = [{name: ids[begin:end] for name, ids in whole.items()} for begin, end in pairwise(cuts)]
    with torch.no_grad():
        expected = [model.generate(**batch) for batch in batches]
    found = list(generate_all(model, batches, lambda batch: batch))
    assert [batch for batch, _ in found] == batches
    assert all(torch.equal(ids, theirs) for (_, ids), theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize(("kind", "beams"), [("mt5", 1), ("mt5", 3), ("bart", 1)])
def test_waiting_rows_take_free_places_and_no_more(kind: str, beams: int) -> None:
    ends = {"eos_token_id": [1, *range(10, 30)], "num_beams": beams, "early_stopping": True}
    model = model_of(kind, ends | {"repetition_penalty": 2.0})
    whole = prompts_of(model, rows=40)
    batches = [{name: ids[begin : begin + 4] for name, ids in whole.items()} for begin in range(0, 40, 4)]
    computed = decoded_rows(model)
    with torch.no_grad():
        expected = [model.generate(**batch) for batch in batches]
        theirs, computed[:] = list(computed), []
        found = [ids for _, ids in generate_all(model, iter(batches), lambda batch: batch)]
    assert all(torch.equal(ids, other) for ids, other in zip(found, expected, strict=True))
    assert max(computed) <= BATCHES_AT_ONCE * 4 * beams
    assert sum(computed) < sum(theirs)
    assert len(computed) < 0.75 * len(theirs), "passes of the decoder"


def test_batches_are_taken_as_their_turn_comes() -> None:
    model = model_of("t5", {})
    whole = prompts_of(model, rows=40)
    taken = []

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for begin in range(0, 40, 4):
            taken.append(begin)
            yield {name: ids[begin : begin + 4] for name, ids in whole.items()}

    found = generate_all(model, batches(), lambda batch: batch)
    next(found)
    assert 0 < len(taken) < 8
    assert torch.is_grad_enabled(), "a context would be left open between batches"


def test_a_batch_that_is_written_otherwise_never_takes_the_place_of_another() -> None:
    model = model_of("t5", {})
    whole = prompts_of(model, rows=8)
    plain, begun = ({name: ids[at : at + 4] for name, ids in whole.items()} for at in (0, 4))
    begun["decoder_input_ids"] = torch.zeros((4, 2), dtype=torch.int64)
    with pytest.raises(ValueError, match="written already"):
        list(generate_all(model, [plain, begun], lambda batch: batch))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_what_was_read_is_kept_once_for_all_beams(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    update = DynamicLayer.update

    def counted(layer: Any, key: torch.Tensor, *args: Any) -> Any:
        keys.append(len(key))
        return update(layer, key, *args)

    monkeypatch.setattr(DynamicLayer, "update", counted)
    model = model_of(kind, {"num_beams": 4})
    generate(model, prompts_of(model, rows=6))
    assert model.get_decoder().config._attn_implementation == "sdpa"
    # One layer: the keys of what is written come first, those of what was read after them.
    assert keys[:2] == [24, 6]


@pytest.mark.parametrize("early", [True, False])
def test_rows_whose_beams_are_settled_are_not_computed(early: bool) -> None:
    ends = {"eos_token_id": [1, *range(10, 30)]}
    model = model_of("t5", {"num_beams": 3, "early_stopping": early, **ends})
    prompts = prompts_of(model, rows=20)
    computed = decoded_rows(model)
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
    computed = decoded_rows(model)
    with torch.no_grad():
        ids = generate(model, prompts)
    lengths = [int((row != model.config.pad_token_id).sum()) for row in ids]
    assert len(set(lengths)) > 2, "rows must end at several steps for this test to say anything"
    assert computed == sorted(computed, reverse=True)
    assert sum(computed) == sum(lengths)
