"""The loss of an optimiser step does not depend on how its rows fall into micro-batches and workers."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from dure.config import dump_yaml
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer

NUM_ROWS = {"많음": 96, "보통": 24, "드묾": 8}


class FirstGradients(TrainerCallback):
    """Keeps the gradients of the first step, as the optimiser gets them."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0:
            self.kept = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def uneven(tiny, tmp_path):
    """Rows whose class goes with their length, so that micro-batches of similar length differ in classes."""
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [
            (f"{'가나다라마바사'[number % 7]} " * (3 * place + 2) + f"글 {number} 번", label)
            for place, (label, size) in enumerate(NUM_ROWS.items())
            for number in range(size)
        ]
        csv.writer(file).writerows([("text", "label"), *rows])

    def make(architecture: str = "bert", objective: dict | None = None, **training) -> Experiment:
        experiment = tiny(architecture, "full")
        values = experiment.model_dump()
        values["objective"] = objective or {}
        values["training"] |= {"max_steps": 1, "eval_every": 1, "max_grad_norm": 1e9} | training
        if architecture == "bert":
            values["data"] = {"train": str(tmp_path / "train.csv"), "dev": None}
            values["rehearsal"]["max_train_rows"] = 200
        return Experiment.model_validate(values)

    return make


def without_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def first_gradients(experiment: Experiment, profile, folder: Path):
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, profile)
    without_dropout(model)
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=profile, folder=RunFolder(folder)
    )
    seen = FirstGradients()
    trainer.hf.add_callback(seen)
    trainer.train()
    return seen.kept


@pytest.mark.parametrize(
    "objective", [{}, {"label_smoothing": 0.1, "class_weights": "balanced"}], ids=["plain", "balanced"]
)
def test_32_rows_twice_have_the_gradients_of_64_rows_at_once(uneven, cpu, tmp_path, objective) -> None:
    found = [
        first_gradients(
            uneven(objective=objective, batch_size=size, gradient_accumulation_steps=64 // size),
            cpu,
            tmp_path / str(size),
        )
        for size in (32, 64)
    ]
    assert found[0].keys() == found[1].keys()
    assert max(float(gradient.abs().max()) for gradient in found[0].values()) > 1e-3
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-6, rtol=0)


def test_smoothed_tokens_have_the_same_gradients_in_pieces(uneven, cpu, tmp_path) -> None:
    found = [
        first_gradients(
            uneven("t5", {"label_smoothing": 0.1}, batch_size=size, gradient_accumulation_steps=32 // size),
            cpu,
            tmp_path / str(size),
        )
        for size in (8, 32)
    ]
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-6, rtol=1e-5)


def test_smoothing_and_weights_change_what_is_minimised(uneven, cpu, tmp_path) -> None:
    found = {
        str(objective): first_gradients(
            uneven(objective=objective, batch_size=64), cpu, tmp_path / str(place)
        )
        for place, objective in enumerate(
            ({}, {"label_smoothing": 0.1}, {"class_weights": "balanced"}),
        )
    }
    plain, *others = (each["classifier.bias"] for each in found.values())
    for other in others:
        assert not torch.allclose(plain, other, atol=1e-4)


@pytest.mark.parametrize(
    "part",
    [{"max_train_rows": 20}, {"train_ratio": "50%"}, {"fold": {"number": 2, "of": 4}}],
    ids=["at-most", "ratio", "fold"],
)
def test_weights_are_those_of_the_rows_that_are_trained_on(uneven, cpu, part) -> None:
    experiment = uneven(objective={"class_weights": "balanced"})
    experiment = Experiment.model_validate(
        experiment.model_dump() | {"data": experiment.data.model_dump() | part}
    )
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    weights = family.objective(model, corpus.train).class_weights
    counts = torch.bincount(torch.tensor(corpus.train["labels"][:]), minlength=3)
    assert counts.sum() == len(corpus.train) < sum(NUM_ROWS.values())
    present = counts > 0
    expected = len(corpus.train) / (present.sum() * counts[present])
    torch.testing.assert_close(weights[present], expected)


def test_a_family_without_classes_refuses_class_weights(tiny) -> None:
    values = tiny("t5").model_dump() | {"objective": {"class_weights": "balanced"}}
    with pytest.raises(UserError, match="no classes to weigh") as caught:
        load_family(Experiment.model_validate(values))
    assert caught.value.where == "objective.class_weights"


WORKER = """
import os, sys
from pathlib import Path
from dure.config import load_experiment, load_profile
from dure.training.run import RunRequest, run
rank = int(os.environ["RANK"])
run(RunRequest(load_experiment(sys.argv[1]), load_profile("cpu"), Path(sys.argv[2])), rank=rank, num_workers=2)
"""


@pytest.mark.slow  # test_two_workers.py holds the same with more at once
def test_two_workers_step_as_one_does(uneven, cpu, tmp_path) -> None:
    from dure.training.run import RunRequest, run

    def losses(folder: Path) -> list[tuple[float, float]]:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [(each["loss"], each["grad_norm"]) for each in records if each["kind"] == "train"]

    experiment = uneven(
        objective={"label_smoothing": 0.1, "class_weights": "balanced"},
        batch_size=16, gradient_accumulation_steps=2, max_steps=3,
    )  # fmt: skip
    experiment = experiment.model_copy(
        update={"rehearsal": experiment.rehearsal.model_copy(update={"enabled": False})}
    )
    family = load_family(uneven())
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, cpu)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    family.export(model, corpus.tokenizer, tmp_path / "checkpoint")
    experiment = Experiment.model_validate(
        experiment.model_dump() | {"model": {"checkpoint": str(tmp_path / "checkpoint")}}
    )
    (tmp_path / "experiment.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    run(RunRequest(experiment, cpu, tmp_path / "one"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "experiment.yaml"), str(tmp_path / "two")],
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(sys.path),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors.decode()
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 3
    for step, other in zip(one, two, strict=True):
        assert step == pytest.approx(other, rel=1e-4)
