"""Preference learning: pairs stay whole, the reference is computed once and is the model at its beginning, pairs are learned."""

from __future__ import annotations

import copy
import csv

import numpy as np
import pytest
import torch
from torch.nn import functional

from dure.data.collating import pieces
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.testing import check_family
from dure.preflight.foreseeing import foresee
from dure.training.run import RunRequest, run
from trainables.samples.preferences import preference_corpus


def silent(message: str) -> None:
    pass


def preferring(tiny, kind="full", architecture="llama", **task):
    return tiny(
        architecture, kind, family="trainables.preference", task=task, best_metric="eval_reward_accuracy"
    )


def log_p(model, ids, begin) -> float:
    """What a model gives the tokens of an answer, by its plain logits."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    return float(functional.log_softmax(logits, dim=-1)[range(begin - 1, len(ids) - 1), ids[begin:]].sum())


@pytest.mark.parametrize(
    ("architecture", "kind", "task"),
    [
        pytest.param("llama", "full", {}, marks=pytest.mark.slow),
        ("qwen3", "qlora", {}),
        ("llama", "lora", {"method": "simpo", "beta": 2.0, "margin": 0.5}),
    ],
)
def test_pairs_keep_the_contract(architecture, kind, task, tiny, cpu, tmp_path) -> None:
    check_family(preferring(tiny, kind, architecture, **task), tmp_path, profile=cpu, runs=False)


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_halves_hold_whole_pairs_and_have_the_gradients_of_the_batch(method, tiny, cpu) -> None:
    family = load_family(preferring(tiny, method=method))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu).eval()
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    batch = batches.collate([corpus.train[row] for row in range(5)])
    items = objective.count(batches.targets(batch))
    found = []
    for most, sizes in ((5, [5]), (3, [3, 2]), (1, [1] * 5)):
        cut = [*pieces(batches, batch, most)]
        assert [len(piece["input_ids"]) for piece in cut] == [2 * size for size in sizes]
        model.zero_grad()
        losses = [objective(model(**batches.inputs(piece)), batches.targets(piece), items) for piece in cut]
        torch.autograd.backward(losses)
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        found.append((float(torch.stack(losses).sum().detach()), gradient))
    largest = float(found[0][1].abs().max())
    assert largest > 1e-3
    for loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert float((gradient - found[0][1]).abs().max()) <= 1e-6 * max(1, largest)


@pytest.mark.slow
def test_a_run_on_pairs_keeps_the_contract(tiny, cpu, tmp_path) -> None:
    check_family(preferring(tiny, "lora"), tmp_path, profile=cpu)


def test_a_run_reports_accuracy_and_margin_beside_chance_and_tells_cut_answers(tiny, cpu, tmp_path) -> None:
    experiment = preferring(tiny, "lora").with_(
        {"training.max_steps": 2, "training.eval_every": 1, "tokenizer.decoder_max_len": 16}
    )
    metrics = run(RunRequest(experiment, cpu, tmp_path)).metrics
    assert 0 <= metrics["eval_reward_accuracy"] <= 1
    assert metrics["untrained_loss"] == pytest.approx(metrics["baseline_loss"], abs=1e-4)
    assert {"test_reward_accuracy", "eval_reward_margin", "baseline_reward_accuracy"} <= {*metrics}
    told = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "pairs have an answer of more than tokenizer.decoder_max_len=16" in told


def test_the_reference_is_the_model_at_its_beginning_whatever_is_learned(tiny, cpu) -> None:
    family = load_family(preferring(tiny, "lora"))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu).eval()
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    objective = family.objective(model, corpus.train)
    # At the beginning both are the same model: no reward, and log 2 as loss.
    start = objective(model(**batches.inputs(batch)), batches.targets(batch))
    assert float(start.detach()) == pytest.approx(0.693147, abs=1e-5)
    torch.autograd.backward(start)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    optimizer.step()
    assert float(objective(model(**batches.inputs(batch)), batches.targets(batch)).detach()) < 0.69
    for place in range(4):
        row = corpus.train[place]
        answers = (row["input_ids"], row["rejected_ids"])
        with model.disable_adapter():
            off = [log_p(model, ids, row["prompt_length"]) for ids in answers]
        on = [log_p(model, ids, row["prompt_length"]) for ids in answers]
        assert row["reference"] == pytest.approx(off, abs=1e-3)
        assert row["reference"] != pytest.approx(on, abs=1e-3)


def test_the_loss_of_a_batch_is_that_of_plain_logits(tiny, cpu) -> None:
    family = load_family(preferring(tiny, beta=0.5))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    batches = family.batches(corpus.tokenizer, model)
    rows = [corpus.train[row] for row in range(3)]
    batch = batches.collate(rows)
    found = family.objective(model, corpus.train)(model(**batches.inputs(batch)), batches.targets(batch))
    expected = 0.0
    for row in rows:
        sides = [log_p(model, row[name], row["prompt_length"]) for name in ("input_ids", "rejected_ids")]
        ahead = (sides[0] - row["reference"][0]) - (sides[1] - row["reference"][1])
        expected -= float(functional.logsigmoid(torch.tensor(0.5 * ahead, dtype=torch.float64))) / 3
    assert float(found.detach()) == pytest.approx(expected, abs=1e-4)


def test_a_step_of_dpo_is_that_of_two_models_and_plain_logits(tiny, cpu) -> None:
    """Loss and gradients to 1e-6, of the formula written down once more over whole logits of policy and reference."""
    family = load_family(preferring(tiny))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu).eval()
    start = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    batches = family.batches(corpus.tokenizer, model)
    rows = [corpus.train[row] for row in range(4)]
    batch = batches.collate(rows)
    loss = family.objective(model, corpus.train)(model(**batches.inputs(batch)), batches.targets(batch))
    found = torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)

    def given(by, ids, begin) -> torch.Tensor:
        logits = by(input_ids=torch.tensor([ids])).logits[0, begin - 1 : -1].double()
        return logits.log_softmax(-1).gather(1, torch.tensor(ids[begin:])[:, None]).sum()

    losses = []
    for row in rows:
        begin, (better, other) = row["prompt_length"], (row["input_ids"], row["rejected_ids"])
        policy = given(model, better, begin) - given(model, other, begin)
        with torch.no_grad():
            reference = given(start, better, begin) - given(start, other, begin)
        losses.append(-functional.logsigmoid(0.1 * (policy - reference)))
    expected = torch.stack(losses).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    wanted = torch.autograd.grad(expected, [*model.parameters()], allow_unused=True)
    largest = max(float(each.abs().max()) for each in wanted if each is not None)
    for one, two in zip(found, wanted, strict=True):
        assert (one is None) == (two is None)
        assert one is None or float((one - two).abs().max()) <= 1e-6 * max(largest, 1)


def test_the_reference_is_computed_once_and_found_again_for_any_beta(tiny, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DURE_CACHE", str(tmp_path))
    told: list[str] = []
    first = load_corpus(load_family(preferring(tiny), told.append), notify=silent)
    assert sum("reference model is loaded" in line for line in told) == 1
    again = load_corpus(load_family(preferring(tiny, beta=0.7), told.append), notify=silent)
    assert sum("reference model is loaded" in line for line in told) == 1
    assert again.dev["reference"][:] == first.dev["reference"][:]
    other = preferring(tiny).with_({"experiment.seed": 7})
    drawn = load_corpus(load_family(other, told.append), notify=silent)
    assert sum("reference model is loaded" in line for line in told) == 2
    assert drawn.dev["reference"][:] != first.dev["reference"][:]
    simpo = load_corpus(load_family(preferring(tiny, method="simpo"), told.append), notify=silent)
    assert sum("reference model is loaded" in line for line in told) == 2
    assert "reference" not in simpo.train.column_names


def test_the_same_answer_twice_is_told_and_options_of_single_answers_are_refused(tiny, tmp_path) -> None:
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [("가나다", "라", "마"), ("바사아", "자", " 자 ")]
        csv.writer(file).writerows([("prompt", "chosen", "rejected"), *rows])
    told: list[str] = []
    data = {"data.train": str(tmp_path / "train.csv"), "data.dev": None}
    load_corpus(load_family(preferring(tiny, method="simpo").with_(data), told.append), notify=silent)
    assert any("1 pairs have the same answer twice" in line and "row 2" in line for line in told)
    for option in ({"packing": False}, {"validate": "text"}, {"margin": 1.0}):
        with pytest.raises(UserError, match=r"not for pairs|DPO has none"):
            load_family(preferring(tiny, **option))


def test_the_sample_corpus_has_one_right_summary_and_the_same_for_one_seed() -> None:
    sizes = {"num_train": 60, "num_dev": 6, "num_test": 6}
    corpus = preference_corpus(**sizes)
    rows = [row for split in corpus.values() for row in split]
    assert len({row.chosen for row in rows}) == len({row.prompt for row in rows}) == len(rows)
    assert all(row.chosen != row.rejected for row in rows)
    assert {row.wrong for row in corpus["dev"]} == {"person", "thing", "outcome"}
    assert preference_corpus(**sizes) == corpus
    assert preference_corpus(seed=7, **sizes) != corpus


def test_the_reference_is_computed_on_the_machine_that_was_chosen(tiny, cpu, tmp_path, monkeypatch) -> None:
    # Such as --profile cpu where there is a GPU, which may be full.
    monkeypatch.setattr("trainables.preference.recognised_profile", lambda: pytest.fail("another was asked"))
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    experiment = preferring(tiny).with_({"training.max_steps": 1, "data.max_train_rows": 4})
    assert run(RunRequest(experiment, cpu, tmp_path / "run")).state == "completed"


def test_the_reference_computes_in_the_format_of_training(tiny, cpu, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    told: list[str] = []
    found = {}
    for precision in ("fp32", "bf16"):
        family = load_family(preferring(tiny), told.append)
        family.profile = cpu.with_({"precision": precision})
        found[precision] = np.array(load_corpus(family, notify=silent).dev["reference"][:])
    assert sum("reference model is loaded" in line for line in told) == 2
    assert 0 < np.abs(found["fp32"] - found["bf16"]).max() < 0.5
    # The model that training begins with, as it trains.
    model = family.load_model(load_corpus(family, notify=silent).tokenizer, family.profile).eval()
    corpus = load_corpus(family, notify=silent)
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.collate(list(corpus.dev))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        start = family.objective(model, corpus.train)(model(**batches.inputs(batch)), batches.targets(batch))
    assert float(start) == pytest.approx(0.693147, abs=2e-3)


def test_a_forecast_lets_no_model_compute_references(tiny, cpu, monkeypatch) -> None:
    experiment = preferring(tiny, "lora")

    def load(self, *args):
        raise AssertionError("weights were loaded")

    looked_at = load_family(experiment)
    with monkeypatch.context() as patch:
        patch.setattr(type(looked_at), "_references", load)
        assert foresee(looked_at, cpu).forecast.parts["weights"] > 0
    trained = load_corpus(load_family(experiment), notify=silent)
    assert trained.train["reference"][0] != [0.0, 0.0]  # not those of the forecast, from the cache
