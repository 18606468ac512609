"""Attention by rows has the numbers of PyTorch's own, drops the same where the draws are the same, and is gone after a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from dure.modeling import attention
from dure.modeling import dropout as dropout_module
from dure.modeling.attention import no_cache
from dure.modeling.cpu_layers import CpuLayers

ROWS, HEADS, QUERIES, KEYS, WIDTH = 3, 2, 5, 7, 4


def t5(dropout):
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=dropout, decoder_start_token_id=0))


def bert(dropout):
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(
        BertConfig(**sizes, num_hidden_layers=2, attention_probs_dropout_prob=dropout)
    )


def batch(model, is_padded):
    ids = torch.randint(5, 50, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if is_padded:
        mask[1:, 9:] = 0
        mask[3, 4:] = 0
    labels = ids[:, :6].contiguous() if model.config.is_encoder_decoder else ids[:, 0] % 2
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def as_pytorch_draws(like, p):
    return torch.empty_like(like).bernoulli_(1 - p).div_(1 - p)


def step(model, is_padded):
    model.zero_grad()
    torch.manual_seed(7)
    loss = model(**batch(model, is_padded)).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("at_once", [1, 2**18], ids=["single-rows", "whole-batch"])
@pytest.mark.parametrize("is_padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed-again"])
@pytest.mark.parametrize(("make", "dropout"), [(t5, 0.0), (t5, 0.2), (bert, 0.2)])
def test_a_step_has_the_loss_and_the_gradients_of_pytorchs_own(
    monkeypatch, make, dropout, checkpointing, is_padded, at_once
):
    monkeypatch.setattr(attention, "_CACHED", at_once)
    # PyTorch's own layers draw their dropout where nothing else can.
    for module in (attention, dropout_module):
        monkeypatch.setattr(module, "dropout_factors", as_pytorch_draws)
    used = []
    by_rows = attention._ByRows.apply
    monkeypatch.setattr(attention._ByRows, "apply", lambda *given: used.append(1) or by_rows(*given))
    torch.manual_seed(0)
    model = make(dropout).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected = step(model, is_padded)
    assert not used
    with CpuLayers(model).applied():
        found = step(model, is_padded)
    assert used
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("at_once", [1, 2**18], ids=["single-rows", "whole-batch"])
def test_the_numbers_are_those_of_the_formula(monkeypatch, at_once):
    monkeypatch.setattr(attention, "_CACHED", at_once)
    torch.manual_seed(0)
    shapes = [(ROWS, HEADS, places, WIDTH) for places in (QUERIES, KEYS, KEYS)] + [(1, HEADS, QUERIES, KEYS)]
    given = [torch.randn(shape, dtype=torch.float32, requires_grad=True) for shape in shapes]
    query, key, value, bias = (each.detach().double().requires_grad_() for each in given)
    mask = torch.rand(ROWS, 1, QUERIES, KEYS) > 0.3
    mask[..., 0] = True
    scores = torch.einsum("rhqw,rhkw->rhqk", query, key) * 0.5 + bias
    weights = functional.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    expected = torch.einsum("rhqk,rhkw->rqhw", weights, value)
    found, _ = attention._attention(
        SimpleNamespace(is_causal=False), *given[:3], mask, scaling=0.5, position_bias=given[3]
    )
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    slopes = torch.randn_like(found)
    expected_slopes = torch.autograd.grad(expected, (query, key, value, bias), slopes.double())
    for one, other in zip(torch.autograd.grad(found, given, slopes), expected_slopes, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-6, rtol=1e-5)


def test_what_pytorch_has_a_kernel_for_is_left_to_it(monkeypatch):
    monkeypatch.setattr(attention._ByRows, "apply", lambda *given: pytest.fail("computed by rows"))
    model = bert(0.0).train()
    with CpuLayers(model).applied():
        step(model, is_padded=True)
        with torch.autocast("cpu", torch.bfloat16):
            step(t5(0.0).train(), is_padded=True)
        model.eval()
        with torch.no_grad():
            model(**batch(model, is_padded=True))


def test_models_are_as_they_were_after_a_step_also_after_one_that_fails():
    model = t5(0.0)
    parts = [model, model.encoder, model.decoder]
    within = []

    def fails():
        within.extend(each.config._attn_implementation for each in parts)
        raise MemoryError

    with pytest.raises(MemoryError), CpuLayers(model).applied():
        fails()
    assert within == ["sdpa_by_rows"] * 3
    assert [each.config._attn_implementation for each in parts] == ["sdpa"] * 3


def test_without_a_cache_for_text_a_model_has_the_same_logits():
    model = t5(0.0).eval()
    given = batch(model, is_padded=True)
    kept = model(**given)
    assert kept.past_key_values is not None
    found = model(**no_cache(model) | given)
    assert found.past_key_values is None
    assert torch.equal(found.logits, kept.logits)
    assert no_cache(bert(0.0)) == {}
