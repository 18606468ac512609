"""Lower layers move less: in the optimizer's groups, in the weights, under every schedule."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerCallback

from dure.config.schema import SCHEDULER_OPTIONS
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer

DECAY = 0.5


class Rates(TrainerCallback):
    """Keeps the weights before the first step and after it, and the rates of all groups by step."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.before = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.rates, self.moved = [], {}

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.groups = optimizer.param_groups
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        if state.global_step == 0:
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.moved[name] = float((parameter.detach() - self.before[name]).abs().max())


def trained(experiment, cpu, folder):
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=cpu, folder=RunFolder(folder)
    )
    seen = Rates()
    trainer.hf.add_callback(seen)
    trainer.train()
    return trainer, seen


def test_a_first_step_of_adam_moves_every_level_by_its_rate(tiny, cpu, tmp_path) -> None:
    experiment = tiny("bert", "full", layer_lr_decay=DECAY, weight_decay=0.01, scheduler="constant")
    trainer, seen = trained(experiment, cpu, tmp_path)
    rate = experiment.training.learning_rate
    # Adam's first step is the rate in every component whose gradient is not tiny; decay adds 1 percent of a weight.
    for name, distance in (
        ("classifier.weight", 0),
        ("bert.encoder.layer.0.output.dense.weight", 1),
        ("bert.embeddings.word_embeddings.weight", 2),
    ):
        assert seen.moved[name] == pytest.approx(rate * DECAY**distance, rel=0.05)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    grouped = [id(parameter) for group in seen.groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(names)
    for group in seen.groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            kept = "bias" in name or "LayerNorm" in name
            assert group["weight_decay"] == (0.0 if kept else 0.01), name
    recorded = [r["learning_rate"] for r in read_json_lines(tmp_path / "metrics.jsonl") if "loss" in r]
    assert recorded == pytest.approx([rate] * 6)


@pytest.mark.parametrize("scheduler", SCHEDULER_OPTIONS)
def test_every_schedule_keeps_the_levels_apart(scheduler, tiny, cpu, tmp_path) -> None:
    more = {
        "layer_lr_decay": DECAY,
        "scheduler": scheduler,
        "max_steps": 3,
        "warmup_steps": 1,
        "warmup_ratio": 0,
    }
    if scheduler == "constant":
        more["warmup_steps"] = None
    _, seen = trained(tiny("distilbert", "full", **more), cpu, tmp_path)
    _, plain = trained(tiny("distilbert", "full", **more | {"layer_lr_decay": None}), cpu, tmp_path / "plain")
    for rates, (rate, *_) in zip(seen.rates, plain.rates, strict=True):
        assert sorted(set(rates)) == pytest.approx(sorted({rate * DECAY**distance for distance in range(3)}))


def test_adapters_have_the_rates_of_their_layers(tiny, cpu, tmp_path) -> None:
    _, seen = trained(tiny("bart", "lora", layer_lr_decay=DECAY), cpu, tmp_path)
    assert {group["rate_factor"] for group in seen.groups} == {0.5, 0.25}
    assert all(group["params"] for group in seen.groups)
    recorded = [r["learning_rate"] for r in read_json_lines(tmp_path / "metrics.jsonl") if "loss" in r]
    assert recorded == pytest.approx([2 * rates[0] for rates in seen.rates])


def test_a_decay_of_one_is_the_optimizer_without_it(tiny, cpu, tmp_path) -> None:
    weights = [
        trained(tiny("bert", "full", layer_lr_decay=decay), cpu, tmp_path / str(decay))[0].model.state_dict()
        for decay in (None, 1.0)
    ]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])
