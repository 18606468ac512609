"""R-Drop in a real step: two dropouts over the same rows, however the rows fall into micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from transformers import TrainerCallback

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer

EMOTIONS = {"family": "trainables.emotion", "task": {"multi_label": True}, "best_metric": "eval_macro_f1"}
CASES = [("t5", "full", {}), ("bart", "lora", {}), ("bert", "full", {}), ("bert", "lora", EMOTIONS)]


class EveryHalf(torch.nn.Module):
    """A dropout that no chance decides: the first pass over the rows loses a little, the second one more."""

    def forward(self, x):
        half = len(x) // 2
        return torch.cat([0.9 * x[:half], 1.2 * x[half:]])


def trainer_of(experiment, cpu, folder, change=lambda model: None):
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    change(model)
    return ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=cpu, folder=RunFolder(folder)
    )


def gradients_of(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def batch_of(trainer, rows=4):
    batch = next(iter(trainer.hf.get_train_dataloader()))
    return {name: value[:rows] for name, value in batch.items()}


@pytest.mark.parametrize(("architecture", "kind", "more"), CASES)
def test_loss_and_gradient_of_a_step_are_those_of_the_formula(
    architecture, kind, more, tiny, cpu, tmp_path
) -> None:
    experiment = tiny(architecture, kind, objective={"r_drop": 2.0, "label_smoothing": 0.1}, **more)
    trainer = trainer_of(experiment, cpu, tmp_path)
    model, objective, batch = trainer.model, trainer.hf.parts.objective, batch_of(trainer)
    torch.manual_seed(1)
    loss = trainer.hf.training_step(model, dict(batch), objective.count(batch["labels"]))
    found = gradients_of(model)
    model.zero_grad()
    labels = batch["labels"]
    twice = trainer.hf.parts.batches.inputs({name: torch.cat([x, x]) for name, x in batch.items()})
    torch.manual_seed(1)
    with trainer.layers.applied():  # so that the same is dropped
        first, second = model(**twice).logits.chunk(2)
    assert not torch.allclose(first, second)
    kind = Bernoulli if more else Categorical
    places = labels != -100 if architecture in ("t5", "bart") else slice(None)
    p, q = kind(logits=first[places]), kind(logits=second[places])
    apart = (kl_divergence(p, q) + kl_divergence(q, p)).mean() / 2
    mean = (objective({"logits": first}, labels) + objective({"logits": second}, labels)) / 2
    expected = mean + 2.0 * apart
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    assert float(apart.detach()) > 1e-5
    wanted = gradients_of(model)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


def test_off_makes_one_pass_over_every_row_and_on_makes_two(tiny, cpu, tmp_path) -> None:
    for weight, times in ((0.0, 1), (0.5, 2)):
        trainer = trainer_of(tiny("bert", "full", objective={"r_drop": weight}), cpu, tmp_path / str(times))
        seen = []
        trainer.model.register_forward_pre_hook(
            lambda module, args, given, seen=seen: seen.append(len(given["input_ids"])), with_kwargs=True
        )
        trainer.hf.training_step(trainer.model, batch_of(trainer), 4)
        assert seen == [4 * times]
        trainer.hf.evaluate(trainer.hf.train_dataset.select(range(4)))
        assert seen[1:] == [4]


class FirstGradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0:
            self.kept = gradients_of(model)


def without_chance(model):
    """Put known factors in place of dropout: before the head, so that every layer's gradient has them."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.dropout = EveryHalf()


def first_gradients(experiment, cpu, folder):
    seen = FirstGradients()
    trainer = trainer_of(experiment, cpu, folder, without_chance)
    trainer.hf.add_callback(seen)
    trainer.train()
    return seen.kept


def test_16_rows_in_four_passes_have_the_gradients_of_one(tiny, cpu, tmp_path) -> None:
    common = {"objective": {"r_drop": 3.0}, "max_steps": 1, "max_grad_norm": 1e9}
    whole = first_gradients(tiny("bert", "full", batch_size=16, **common), cpu, tmp_path / "a")
    parts = first_gradients(
        tiny("bert", "full", batch_size=4, gradient_accumulation_steps=4, **common), cpu, tmp_path / "b"
    )
    plain = first_gradients(
        tiny("bert", "full", batch_size=16, **common | {"objective": {}}), cpu, tmp_path / "c"
    )
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, parts[name], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(whole["classifier.weight"], plain["classifier.weight"], atol=1e-4)


def test_recomputed_activations_have_the_same_dropout(tiny, cpu, tmp_path) -> None:
    found = []
    for checkpointed in (False, True):
        trainer = trainer_of(
            tiny("bart", "lora", objective={"r_drop": 2.0}, gradient_checkpointing=checkpointed),
            cpu, tmp_path / str(checkpointed),
        )  # fmt: skip
        if checkpointed:
            trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(3)
        loss = trainer.hf.training_step(trainer.model, batch_of(trainer), 40)
        found.append((loss, gradients_of(trainer.model)))
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name])


def test_the_divergence_is_computed_in_full_precision_under_bf16(tiny, cpu, tmp_path) -> None:
    trainer = trainer_of(tiny("t5", "full", objective={"r_drop": 2.0}, precision="bf16"), cpu, tmp_path)
    trainer.train()
    records = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert '"loss": null' not in records
    assert records.count('"kind": "train"') == 6
