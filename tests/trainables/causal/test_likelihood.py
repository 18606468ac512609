"""Losses of target tokens are those of the whole logits, which are never held."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from dure.modeling.objectives import IGNORED
from tests.trainables.causal.test_packing import VOCABULARY, model_of, rows_of, step
from trainables.causal import likelihood
from trainables.causal.likelihood import TargetLosses, score_targets
from trainables.causal.packing import Conversations


def reference(model, rows, smoothing=0.0):
    """Compute loss and gradients from all logits of every row alone, by torch's own cross entropy."""
    model.zero_grad()
    total, items = 0.0, sum(end - begin for row in rows for begin, end in row["learned"])
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        labels = torch.full_like(ids, IGNORED)
        for begin, end in row["learned"]:
            labels[0, begin:end] = ids[0, begin:end]
        logits = model(input_ids=ids).logits
        loss = cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
        )
        (loss / items).backward()
        total += float(loss) / items
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# Gemma 2 caps its logits, Granite and Cohere scale them, Qwen does neither.
@pytest.mark.parametrize("name", ["qwen3", "gemma2", "granite", "cohere2"])
def test_the_loss_is_that_of_all_logits(name, monkeypatch):
    monkeypatch.setattr(likelihood, "CHUNK", 7 * VOCABULARY)
    model, rows = model_of(name), rows_of()
    loss, gradients = reference(model, rows)
    found, _, chunked = step(model, Conversations(0, "positions"), rows)
    assert math.isclose(found, loss, rel_tol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-4, atol=1e-6)


def test_smoothing_is_torchs_own():
    model, rows = model_of("llama"), rows_of()
    score_targets(model, smoothed=True)
    batches, objective = Conversations(0), TargetLosses(0.1)
    batch = batches.collate(rows)
    outputs = model(**batches.inputs(batch))
    loss, _ = reference(model, rows, 0.1)
    assert math.isclose(float(objective(outputs, batches.targets(batch))), loss, rel_tol=1e-6)


def test_perplexity_is_e_to_the_mean_over_all_target_tokens():
    sums = TargetLosses().mean_losses(torch.tensor([12.0, 8.0], dtype=torch.float64))
    assert sums == {"loss": 1.5, "perplexity": pytest.approx(math.exp(1.5))}
    assert math.isfinite(TargetLosses().mean_losses(torch.tensor([1e9, 1.0]))["perplexity"])


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the most numbers that a tensor has."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return made


@pytest.mark.parametrize("trains", [False, True])
def test_no_tensor_holds_all_tokens_times_the_vocabulary(trains, monkeypatch):
    monkeypatch.setattr(likelihood, "CHUNK", 8 * VOCABULARY)
    model = model_of("llama")
    rows = rows_of((200,) * 8)
    for row in rows:
        row["learned"] = [[1, 200]]
    batches = Conversations(0)
    batch = batches.collate(rows)
    with Largest() as seen, torch.set_grad_enabled(trains):
        loss = TargetLosses()(model(**batches.inputs(batch)), batches.targets(batch))
        if trains:
            loss.backward()
    # Of 1,592 tokens times 300 that is 8 times 300; layers hold 1,600 tokens times the width of their inner layer.
    assert seen.numbers < 8 * 200 * VOCABULARY
    weights = max(p.numel() for p in model.parameters())
    assert seen.numbers <= max(weights, 8 * 200 * model.config.intermediate_size, 8 * 4 * 200 * 200)
