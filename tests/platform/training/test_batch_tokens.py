"""A budget of tokens decides how the rows of a step are computed, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.data.batching import LengthGroupedSampler, Targets
from dure.data.collating import PaddedRows, cut
from dure.errors import UserError
from dure.files import read_json_lines
from dure.training.arguments import check_budget
from dure.training.parts import batch_tokens_of
from dure.training.run import RunRequest, run
from trainables.preference import Pairs

from .test_objective_of_a_step import first_gradients, uneven  # noqa: F401 - a fixture
from .test_recovery import Short, made, without_dropout
from .test_stopping import assert_same_run, shaped, stopped_and_resumed

ROWS = PaddedRows(0)
ROWS.multiple_of = 1


def row(length):
    return {"input_ids": [5] * length, "labels": 0}


@pytest.mark.parametrize("multiple_of", [1, 8])
@given(lengths=st.lists(st.integers(1, 60), max_size=40), budget=st.integers(8, 200))
def test_every_row_is_in_one_run_and_no_run_of_several_rows_is_above_the_budget(multiple_of, lengths, budget):
    # On CUDA lengths are rounded up to a multiple of 8.
    batches = PaddedRows(0)
    batches.multiple_of = multiple_of
    runs = cut(batches, [row(length) for length in lengths], budget)
    assert sorted(len(each["input_ids"]) for run in runs for each in run) == sorted(lengths)
    for each in runs:
        assert len(each) == 1 or batches.collate(each)["input_ids"].numel() <= budget
    # A run ends only because the next row would have been too much.
    for one, other in pairwise(runs):
        assert batches.collate([*one, other[0]])["input_ids"].numel() > budget


def test_pairs_of_answers_stay_within_the_budget_where_lengths_are_rounded_up():
    batches = Pairs(0)
    batches.multiple_of = 8
    rows = [
        {
            "input_ids": [5] * length,
            "rejected_ids": [5] * 3,
            "prompt_length": 1,
            "learned": [],
            "rejected_learned": [],
        }
        for length in (9, 9, 9, 7, 5)
    ]
    runs = cut(batches, rows, 64)
    assert [batches.collate(run)["input_ids"].numel() for run in runs] == [64, 64, 16]


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [("bert", {"label_smoothing": 0.1, "class_weights": "balanced"}), ("t5", {"label_smoothing": 0.1})],
)
def test_a_step_cut_by_tokens_has_the_gradients_of_its_rows_at_once(
    uneven,  # noqa: F811
    cpu,
    tmp_path,
    architecture,
    objective,
):
    # The second is not grouped by length: what is cut is sorted inside of the step alone.
    ways = {
        "rows": {},
        "tokens": {"batch_tokens": 200},
        "ungrouped": {"batch_tokens": 200, "group_by_length": False},
    }
    found = {
        way: first_gradients(
            uneven(architecture, objective, batch_size=8, gradient_accumulation_steps=4, **more),
            cpu,
            tmp_path / way,
        )
        for way, more in ways.items()
    }
    for name, gradient in found["rows"].items():
        torch.testing.assert_close(gradient, found["tokens"][name], atol=1e-6, rtol=1e-5)
    assert any(
        not torch.allclose(gradient, found["ungrouped"][name], atol=1e-4)
        for name, gradient in found["rows"].items()
    )
    losses = {
        way: [each["loss"] for each in read_json_lines(tmp_path / way / "metrics.jsonl") if "loss" in each]
        for way in ways
    }
    assert losses["rows"] == pytest.approx(losses["tokens"], rel=1e-6)


BUDGET = {
    "ema": 0.9,
    "batch_size": 8,
    "batch_tokens": 96,
    "max_steps": 8,
    "eval_every": 3,
    "log_every": 1,
    "epochs": 2,
}


def test_a_run_that_is_stopped_in_an_epoch_goes_on_exactly(tiny, cpu, tmp_path):
    experiment = shaped(tiny, ("bert", "full"), BUDGET)
    run(RunRequest(experiment, cpu, tmp_path / "whole"))
    result, stops = stopped_and_resumed(experiment, cpu, tmp_path / "cut", (2,))
    assert len(stops) == 1
    assert result.metrics["steps"] == 8
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_memory_that_does_not_suffice_halves_what_the_budget_has_cut(tiny, cpu, tmp_path):
    common = {"max_steps": 3, "eval_every": 3, "batch_size": 8, "batch_tokens": 400}
    calm = made(
        tiny("bert", "full", **common), cpu, tmp_path / "calm", without_dropout, torch.nn.Module.double
    )
    calm.train()
    short = Short(rows=3)
    trainer = made(
        tiny("bert", "full", on_oom="shrink", **common), cpu, tmp_path / "short", without_dropout,
        torch.nn.Module.double, short,
    )  # fmt: skip
    outcome = trainer.train()
    assert outcome["num_oom"] > 0
    assert trainer.recovery.rows_at_once <= 3
    losses = [
        [each["loss"] for each in read_json_lines(tmp_path / way / "metrics.jsonl") if "loss" in each]
        for way in ("calm", "short")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_budget_below_a_row_and_one_for_deepspeed_are_refused(tiny, cpu, tmp_path):
    experiment = tiny("t5", "full")
    with pytest.raises(ValidationError, match=r"batch_tokens 40 is below tokenizer.encoder_max_len"):
        Experiment.model_validate(
            experiment.model_dump() | {"training": experiment.training.model_dump() | {"batch_tokens": 40}}
        )
    tight = tiny("t5", "full", batch_tokens=64)
    with pytest.raises(UserError, match="with its target, more than a batch of 64") as error:
        made(tight, cpu, tmp_path)
    assert error.value.where == "training.batch_tokens"
    with pytest.raises(UserError, match="equally many passes"):
        check_budget(tight, load_profile("cpu").model_copy(update={"deepspeed": "zero2"}))


@pytest.mark.parametrize(
    ("batches", "r_drop", "least"),
    [(PaddedRows, 0.0, 16), (PaddedRows, 1.0, 32), (Pairs, 0.0, 32)],
    ids=["rounded", "r-drop", "pairs"],
)
def test_what_the_longest_row_takes_decides_whether_it_fits_the_budget(tiny, cpu, batches, r_drop, least):
    # On CUDA 9 tokens take 16 positions, R-Drop reads them twice, and a pair has two answers.
    made_of = batches(0)
    made_of.multiple_of = 8
    cells = {"input_ids": [5] * 9, "rejected_ids": [5] * 3, "length": 9}
    rows = datasets.Dataset.from_list([cells | {"length": 3, "input_ids": [5] * 3}, cells])
    experiment = tiny("bert", "full", objective={"r_drop": r_drop}).with_({"tokenizer.encoder_max_len": 8})
    for budget, fits in ((least, True), (least - 1, False)):
        given_budget = experiment.with_({"training.batch_tokens": budget})
        if fits:
            assert batch_tokens_of(given_budget, rows, made_of, cpu) == least // (2 if r_drop else 1)
            continue
        with pytest.raises(UserError, match="the longest row has") as error:
            batch_tokens_of(given_budget, rows, made_of, cpu)
        assert error.value.expected == f"{least} or more"


@pytest.fixture(scope="module")
def lengths():
    """Lengths like those of dialogues and their summaries."""
    random = np.random.default_rng(3)
    inputs = np.exp(random.normal(5, 0.5, 2000)).astype(int).clip(20, 512)
    return inputs, (inputs * random.uniform(0.05, 0.3, 2000)).astype(int) + 3


def test_workers_get_equally_much_of_every_step(lengths):
    inputs, targets = lengths
    alone, dealt = (
        [*LengthGroupedSampler(inputs, 32, 1, Targets(targets, 2.0), num_hands=hands)] for hands in (1, 2)
    )
    apart = []
    for step in range(len(inputs) // 32):
        rows = dealt[step * 32 : step * 32 + 32]
        assert sorted(rows) == sorted(alone[step * 32 : step * 32 + 32])
        one, other = inputs[rows[:16]].sum(), inputs[rows[16:]].sum()
        apart.append(abs(one - other) / (one + other))
    assert np.mean(apart) < 0.01
    assert max(apart) < 0.05


def micro_batches(lengths, epoch, budget):
    """The micro-batch of every row: of 8 rows, or cut by tokens."""
    inputs, targets = lengths
    sampler = LengthGroupedSampler(inputs, 32, 1, Targets(targets, 2.0))
    sampler.set_epoch(epoch)
    order, place, number = [*sampler], np.zeros(len(inputs), dtype=int), 0
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        held = [{"input_ids": [0] * inputs[each], "row": each} for each in rows]
        runs = (
            [held[at : at + 8] for at in range(0, len(held), 8)]
            if budget is None
            else cut(ROWS, held, budget)
        )
        for run_ in runs:
            place[[each["row"] for each in run_]] = number
            number += 1
    return place


def test_rows_meet_as_many_others_from_epoch_to_epoch_as_in_batches_of_rows(lengths):
    kept = {}
    for budget in (None, 1600):
        first, second = (micro_batches(lengths, epoch, budget) for epoch in (1, 2))

        def pairs(*places):
            _, sizes = np.unique(np.stack(places), axis=1, return_counts=True)
            return (sizes * (sizes - 1)).sum()

        kept[budget] = pairs(first, second) / pairs(first)
    assert kept[1600] < 1.25 * kept[None]
