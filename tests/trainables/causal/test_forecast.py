"""What a decoder-only model will take is foretold from a trace of its own step, and the trace leaves it as it was."""

from __future__ import annotations

from dure.config import load_experiment, load_profile
from dure.config.rehearsal import rehearsal_of
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.modeling.tracing import trace_step


def test_the_step_of_a_decoder_is_traced_on_a_copy():
    changes = {"rehearsal.max_train_rows": 16, "rehearsal.num_layers": 1, "model.quantization": None}
    family = load_family(rehearsal_of(load_experiment("causal_qwen").with_(changes)), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, load_profile("cpu"))
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    traced = trace_step(model, batches, objective, batch, precision="fp32")
    trained = [each for each in model.parameters() if each.requires_grad]
    assert all(each.grad is None for each in trained)
    assert traced.gradients == sum(4 * each.numel() for each in trained)
    # Forward and backward pass of every product of matrices: at least twice its multiplications and additions.
    assert traced.flops > 4 * sum(each.numel() for each in model.parameters() if each.ndim == 2)
    loss = objective(
        model(**batches.inputs(batch)), batches.targets(batch), objective.count(batches.targets(batch))
    )
    loss.backward()
    assert all(each.grad is not None for each in trained)
