"""What a trace says of a training step is what the step takes."""

from __future__ import annotations

import pytest
import torch

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.modeling.tracing import trace_step
from tests.benchmarks.forecast import real_peak


@pytest.mark.parametrize(
    ("architecture", "kind", "passes", "by_rows", "most"),
    [
        ("bert", "full", 1, False, 1.0),
        ("bert", "full", 2, True, 1.0),
        pytest.param("t5", "full", 1, False, 1.005, marks=pytest.mark.slow),
        pytest.param("t5", "full", 1, True, 1.005, marks=pytest.mark.slow),
        ("bart", "lora", 2, False, 1.005),
    ],
)
def test_the_peak_of_a_step_is_foretold_without_its_numbers(
    tiny, cpu, architecture, kind, passes, by_rows, most
):
    family = load_family(tiny(architecture, kind), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    traced = trace_step(
        model, batches, objective, batch, precision="fp32", accumulates=passes > 1, by_rows=by_rows
    )
    real = real_peak(model, batches, objective, batch, passes=passes, by_rows=by_rows)
    assert 1.0 <= traced.peak / real <= most
    trained = sum(4 * each.numel() for each in model.parameters() if each.requires_grad)
    assert (traced.gradients, traced.moments) == (trained, 2 * trained)


def test_checkpointing_takes_less_memory_and_computes_more(tiny, cpu):
    experiment = tiny("bert", "full").with_({"rehearsal.num_layers": 4})
    family = load_family(experiment, lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    batch = batches.collate([corpus.train[row] for row in range(16)])
    plain, less = (
        trace_step(model, batches, objective, batch, precision="fp32", checkpointing=each)
        for each in (False, True)
    )
    assert less.activations < plain.activations
    assert less.flops > plain.flops
    # Two operations for every weight and token, in the forward pass and twice in the backward pass.
    weights = sum(
        each.weight.numel() for each in model.bert.encoder.modules() if isinstance(each, torch.nn.Linear)
    )
    assert 1.0 <= plain.flops / (6 * weights * batch["input_ids"].numel()) <= 1.25
