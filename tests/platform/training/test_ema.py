"""The average of the weights: once a step, used in validation, kept whole in checkpoints."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, TrainerCallback

from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.files import read_json_lines
from dure.modeling.ema import WeightAverage
from dure.runs.folder import RunFolder, StageFolder
from dure.training.run import RunRequest, run
from dure.training.trainer import ModelTrainer

EMA = {"ema": 0.9, "gradient_accumulation_steps": 2}


class Steps(TrainerCallback):
    """Keeps the trained weights before the first step and after every one."""

    def __init__(self):
        self.weights = []

    def _keep(self, model):
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._keep(model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self._keep(model)


def by_the_formula(weights, decay):
    average = dict(weights[0])
    for step, now in enumerate(weights[1:]):
        part = min(decay, (1 + step) / (10 + step))
        average = {name: part * average[name] + (1 - part) * now[name] for name in now}
    return average


def same(one, other) -> bool:
    """Whether two saved states are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def made(experiment, cpu, folder):
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    return ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, corpus.dev, profile=cpu, folder=RunFolder(folder)
    )


@pytest.mark.parametrize(("architecture", "kind"), [("bert", "full"), ("t5", "full"), ("bart", "lora")])
def test_the_average_is_the_formulas_over_optimiser_steps(architecture, kind, tiny, cpu, tmp_path) -> None:
    trainer = made(tiny(architecture, kind, save_total_limit=5, **EMA), cpu, tmp_path)
    seen = Steps()
    trainer.hf.add_callback(seen)
    outcome = trainer.train()
    assert len(seen.weights) == 7
    for step in (2, 4, 6):
        saved = torch.load(tmp_path / f"checkpoint-{step}" / "ema.pt", weights_only=True)
        assert saved["num_updates"] == step
        expected = by_the_formula(seen.weights[: step + 1], 0.9)
        assert expected.keys() <= saved["model_state"].keys()
        for name, weight in expected.items():
            torch.testing.assert_close(saved["model_state"][name], weight, atol=1e-7, rtol=1e-5)
        if kind == "lora":
            assert expected.keys() == saved["model_state"].keys()
        elif architecture == "bert":
            raw = load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors")
            for name, weight in seen.weights[step].items():
                assert torch.equal(raw[name], weight)
                assert not torch.equal(saved["model_state"][name], weight)
    best = torch.load(tmp_path / outcome["best_checkpoint"] / "ema.pt", weights_only=True)["model_state"]
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, best[name])
    if architecture == "t5":
        final = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "final_model")
        assert final.lm_head.weight is final.shared.weight
        torch.testing.assert_close(final.shared.weight, best["shared.weight"])


def test_validation_is_that_of_the_average(tiny, cpu, tmp_path) -> None:
    trainer = made(tiny("bert", "full", **EMA), cpu, tmp_path)
    outcome = trainer.train()
    # The model holds the average of the best checkpoint now.
    again = trainer.evaluate()
    assert again["eval_loss"] == pytest.approx(outcome["eval_metrics"]["eval_loss"], rel=1e-6)
    best = trainer.folder.checkpoints / outcome["best_checkpoint"]
    trainer.model.load_state_dict(load_file(best / "model.safetensors"), strict=False)
    assert abs(trainer.evaluate()["eval_loss"] - again["eval_loss"]) > 1e-5


@pytest.mark.parametrize(("architecture", "kind"), [("bert", "full"), ("bart", "lora")])
def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one(
    architecture, kind, tiny, cpu, tmp_path
) -> None:
    experiment = tiny(architecture, kind, objective={"r_drop": 0.5}, **EMA)
    whole = run(RunRequest(experiment, cpu, tmp_path / "whole"))
    assert whole.metrics["final_weights"] == "ema"
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    cut = tmp_path / "cut"
    for name in ("checkpoint-6", "final_model"):
        shutil.rmtree(cut / name)
    (cut / "result.json").unlink()
    resumed = run(RunRequest(experiment, cpu, cut, resume=True))
    assert resumed.best_checkpoint == whole.best_checkpoint
    for name in ("checkpoint-6/ema.pt", "checkpoint-6/optimizer.pt"):
        ones, others = (torch.load(tmp_path / each / name, weights_only=True) for each in ("whole", "cut"))
        assert same(ones, others)
    one, other = (load_file(tmp_path / each / "final_model/model.safetensors") for each in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())
    losses = [
        [record.get("eval_loss") for record in read_json_lines(tmp_path / each / "metrics.jsonl")]
        for each in ("whole", "cut")
    ]
    assert losses[0] == losses[1]
    # As a kill after the last checkpoint and before the final model.
    shutil.rmtree(cut / "final_model")
    (cut / "result.json").unlink()
    run(RunRequest(experiment, cpu, cut, resume=True))
    again = load_file(cut / "final_model/model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in one.items())


def test_the_file_of_an_epoch_holds_what_was_validated_and_what_was_trained(tiny, cpu, tmp_path) -> None:
    experiment = tiny("bert", "full", ema=0.9, batch_size=20, eval_every="epoch", epochs=2, max_steps=4)
    training = experiment.training.model_copy(update={"eval_every": "epoch", "keep_epochs": 1})
    experiment = experiment.model_copy(update={"training": training})
    run(RunRequest(experiment, cpu, tmp_path, layout=StageFolder))
    folder = tmp_path / "checkpoints"
    for epoch, step in ((1, 2), (2, 4)):
        kept = torch.load(folder / f"epoch_{epoch}.pt", weights_only=True)
        average = torch.load(folder / f"checkpoint-{step}/ema.pt", weights_only=True)["model_state"]
        raw = load_file(folder / f"checkpoint-{step}/model.safetensors")
        assert kept["step"] == step
        assert all(torch.equal(weight, average[name]) for name, weight in kept["model_state"].items())
        assert all(torch.equal(weight, raw[name]) for name, weight in kept["raw_state"].items())


def test_computing_with_the_average_leaves_the_trained_weights_alone() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    start = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
    average.update()
    raw = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied():
        torch.testing.assert_close(model[0].weight.detach(), start + 0.9)
        assert model[1].weight is model[0].weight
    assert all(torch.equal(value, raw[name]) for name, value in model.state_dict().items())


def test_an_average_of_another_model_is_refused(tmp_path) -> None:
    WeightAverage(torch.nn.Linear(2, 2), 0.5).save(tmp_path / "ema.pt")
    with pytest.raises(UserError, match="of another model"):
        WeightAverage(torch.nn.Linear(3, 2), 0.5).load(tmp_path / "ema.pt")
