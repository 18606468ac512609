"""Compiled layers compute what plain ones do, in graphs that hold for all lengths, and leave nothing in the model."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from torch._dynamo import config as tracing
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from dure.config import load_profile
from dure.errors import RunError, UserError
from dure.family import load_family
from dure.files import read_json_lines
from dure.modeling.cpu_layers import CpuLayers
from dure.training.compiler import check_compile, check_compiler
from dure.training.compiling import CompiledLayers, layers_of
from dure.training.run import RunRequest, run

from .test_objective_of_a_step import FirstGradients, uneven  # noqa: F401 - a fixture
from .test_recovery import made
from .test_recovery import without_dropout as without_modules_of_dropout
from .test_stopping import assert_same_run, shaped, stopped_and_resumed

LENGTHS = [(8, 40), (8, 24), (5, 72), (8, 8), (3, 16), (8, 64), (7, 7), (2, 130)]


def bert(layers=2):
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(
        **sizes, num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return BertForSequenceClassification(config).train()


def t5(layers=3):
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2}
    config = T5Config(**sizes, num_layers=layers, dropout_rate=0.0, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).train()


def batch(model, rows, length):
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(5, 50, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:, length // 2 :] = 0
    more = {"decoder_input_ids": ids[:, : length // 2 + 1]} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, "attention_mask": mask, **more}


def gradients(model, rows, length):
    model.zero_grad()
    loss = model(**batch(model, rows, length)).logits.square().mean()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(one, other):
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], atol=1e-5, rtol=1e-5)


# Layers of a kind share a graph; a T5's first ones, which make the positions' bias, have one of their own.
@pytest.mark.parametrize(
    ("build", "graphs", "checkpointing"),
    [
        (bert, 1, False),
        pytest.param(bert, 1, True, marks=pytest.mark.slow),
        pytest.param(t5, 4, False, marks=pytest.mark.slow),
        pytest.param(t5, 4, True, marks=pytest.mark.slow),
    ],
)
def test_graphs_hold_for_all_lengths_and_compute_what_the_layers_do(build, graphs, checkpointing):
    model, told = build(), []
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    plain = [gradients(model, *each) for each in LENGTHS]
    before = [*model.state_dict()]
    layers = CompiledLayers(model, told.append, backend="aot_eager")
    for each, expected in zip(LENGTHS, plain, strict=True):
        with layers.applied():
            assert_close(gradients(model, *each), expected)
    assert 0 < layers.num_graphs <= graphs
    assert layers.seconds > 0
    (line,) = told  # all in the first batch, none for the lengths after it
    assert re.match(rf"training.compile: {layers.num_graphs} graph\(s\) for \d layers took \d+\.\d s", line)
    assert [*model.state_dict()] == before
    assert not any("forward" in vars(module) for module in model.modules())
    assert tracing.recompile_limit == 8  # what this process had before


def test_the_most_graphs_there_may_be_are_told_once_and_the_rest_is_computed_as_it_is(monkeypatch, caplog):
    monkeypatch.setattr("dure.training.compiling._MOST_GRAPHS", 1)
    model, told = bert(), []
    plain = [gradients(model, *each) for each in ((4, 16), (1, 16), (1, 24))]
    layers = CompiledLayers(model, told.append, backend="aot_eager")
    for each, expected in zip(((4, 16), (1, 16), (1, 24)), plain, strict=True):
        with layers.applied():
            assert_close(gradients(model, *each), expected)
    assert layers.num_graphs == 1
    assert sum("a layer has 1 graphs, the most there may be" in line for line in told) == 1
    assert "torch._dynamo hit" not in caplog.text


def test_a_layer_that_cannot_be_compiled_ends_the_run_in_words():
    def broken(graph, inputs):
        raise RuntimeError("no such instruction")

    model = bert()
    layers = CompiledLayers(model, [].append, backend=broken)
    with (
        pytest.raises(RunError, match=r"no such instruction.*; set training.compile=false"),
        layers.applied(),
    ):
        gradients(model, 2, 8)
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_is_not_compiled_is_refused_with_its_keys(tiny, cpu, monkeypatch):
    experiment = tiny("t5", "full", compile=True)
    check_compile(experiment, cpu)
    for refused, profile, named in (
        (tiny("t5", "qlora", compile=True), cpu, "model.quantization"),
        (experiment, cpu.model_copy(update={"deepspeed": "zero2"}), "deepspeed of profile cpu"),
        (experiment, cpu.model_copy(update={"device": "mps"}), "on MPS"),
    ):
        with pytest.raises(UserError, match=named) as error:
            check_compile(refused, profile)
        assert error.value.where == "training.compile"
        assert "training.compile=false" in error.value.expected
    with pytest.raises(UserError, match="Linear has no layers"):
        CompiledLayers(torch.nn.Linear(2, 2), [].append)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="the compiler no-such-compiler is missing") as error:
        layers_of(experiment, cpu, t5(), [].append)
    assert "apt install" in error.value.hint
    monkeypatch.delenv("CXX")
    assert check_compiler("cpu").endswith("++")
    assert isinstance(layers_of(tiny("t5", "full"), cpu, t5(), [].append), CpuLayers)


def without_dropout(model):
    without_modules_of_dropout(model)
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "objective"), [("bert", {}), ("t5", {"r_drop": 0.5})])
def test_a_step_of_training_has_the_gradients_of_plain_layers_and_lengths_in_eights(
    tiny, cpu, tmp_path, architecture, objective
):
    found, told = {}, []
    for way in (False, True):
        experiment = tiny(
            "t5", "lora", objective=objective, max_steps=2, eval_every=2, compile=way, log_every=1
        )
        trainer = made(experiment, cpu, tmp_path / str(way), without_dropout, told=told)
        if way:
            quick = CompiledLayers(trainer.model, told.append, backend="aot_eager")
            trainer.hf.parts = dataclasses.replace(trainer.hf.parts, layers=quick)
        seen = FirstGradients()
        trainer.hf.add_callback(seen)
        lengths = {each["input_ids"].shape[1] for each in trainer.hf.get_train_dataloader()}
        assert all(length % 8 == 0 for length in lengths) or not way
        trainer.train()
        found[way] = seen.kept
    assert quick.num_graphs > 0
    assert any("training.compile:" in line for line in told)
    for name, gradient in found[False].items():
        torch.testing.assert_close(gradient, found[True][name], atol=1e-5, rtol=1e-5)
    losses = [
        [
            each[name]
            for each in read_json_lines(tmp_path / str(way) / "metrics.jsonl")
            for name in ("loss", "eval_loss")
            if name in each
        ]
        for way in (False, True)
    ]
    assert len(losses[0]) >= 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_forecast_says_that_it_traced_plain_layers(tiny, cpu):
    from dure.family.corpus import load_corpus
    from dure.training.forecasting import forecast_run

    experiment = tiny("bert", "full", compile=True)
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    told = forecast_run(family, corpus, family.load_model(corpus.tokenizer, cpu), cpu)
    assert "(traced without training.compile)" in told.sentence
    assert told.as_dict()["proven"] is False


def test_the_optimizer_is_the_fused_one(tiny, cpu, tmp_path):
    trainer = made(tiny("bert", "full", max_steps=1), cpu, tmp_path)
    assert trainer.hf.create_optimizer().defaults["fused"] is True


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_a_compiled_run_that_is_stopped_goes_on_exactly(architecture, tiny, tmp_path):
    cpu = load_profile("cpu")
    training = {
        "compile": True,
        "batch_size": 8,
        "max_steps": 6,
        "eval_every": 3,
        "log_every": 1,
        "epochs": 2,
    }
    experiment = shaped(tiny, (architecture, "full"), training)
    run(RunRequest(experiment, cpu, tmp_path / "whole"))
    result, stops = stopped_and_resumed(experiment, cpu, tmp_path / "cut", (2, 4))
    assert len(stops) == 2
    assert result.metrics["steps"] == 6
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
