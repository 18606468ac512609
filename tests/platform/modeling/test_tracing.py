"""What a trace says of a training step is what the step takes."""

from __future__ import annotations

import pytest
import torch

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.modeling.tracing import trace_step
from tests.benchmarks.forecast import real_peak


@pytest.mark.parametrize(
    ("architecture", "kind", "passes", "checkpointing", "cpu_layers"),
    [
        ("bert", "full", 1, False, False),
        ("bert", "full", 2, False, True),
        pytest.param("t5", "full", 1, False, False, marks=pytest.mark.slow),
        pytest.param("t5", "full", 1, False, True, marks=pytest.mark.slow),
        ("bart", "lora", 2, False, False),  # its decoder makes itself a mask that hides nothing
        ("bart", "qlora", 1, False, False),  # weights are unpacked whenever they are used
        ("bart", "qlora", 1, True, True),  # and layers keep the state of the random numbers
        ("qwen3", "lora", 1, False, True),  # of the targets some are padding
    ],
)
def test_the_peak_of_a_step_is_foretold_without_its_numbers(
    tiny, cpu, architecture, kind, passes, checkpointing, cpu_layers
):
    if kind == "qlora":
        pytest.importorskip("bitsandbytes")
    family = load_family(tiny(architecture, kind), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    traced = trace_step(
        model,
        batches,
        objective,
        batch,
        precision="fp32",
        accumulates=passes > 1,
        checkpointing=checkpointing,
        kernels="cpu" if cpu_layers else "own",
    )
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    real = real_peak(model, batches, objective, batch, passes=passes, cpu_layers=cpu_layers)
    assert traced.peak == pytest.approx(real, rel=1e-3)
    trained = sum(4 * each.numel() for each in model.parameters() if each.requires_grad)
    assert (traced.gradients, traced.moments) == (trained, 2 * trained)


def test_layers_that_are_to_be_packed_take_what_packed_ones_do(tiny, cpu):
    pytest.importorskip("bitsandbytes")
    experiment = tiny("bart", "qlora")
    family = load_family(experiment, lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    packed = family.load_model(corpus.tokenizer, cpu)
    plain = family.load_model(corpus.tokenizer, cpu.model_copy(update={"quantization": False}))
    assert packed.is_quantized
    batches = family.batches(corpus.tokenizer, plain)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    objective, packing = family.objective(plain, corpus.train), experiment.model.quantization
    ahead = trace_step(plain, batches, objective, batch, precision="fp32", packing=packing)
    there = trace_step(packed, batches, objective, batch, precision="fp32")
    assert ahead.weights == pytest.approx(there.weights, rel=1e-3)
    assert ahead.peak == pytest.approx(there.peak, rel=0.01)


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


def test_dropout_on_cuda_keeps_a_byte_for_every_element(tiny, cpu):
    family = load_family(tiny("bert", "full"), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    own, on_cuda = (
        trace_step(model, batches, objective, batch, precision="fp32", kernels=kernels)
        for kernels in ("own", "cuda")
    )
    assert on_cuda.activations < own.activations
    assert on_cuda.flops == own.flops
    assert own.reserved >= own.peak
    assert on_cuda.reserved % 2**21 == 0
