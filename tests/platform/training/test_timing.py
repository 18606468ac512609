"""How long a run takes is forecast by its own batches, and by what runs before it took."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.pace import PACE_FILE, Times, Work
from dure.training.parts import sampler_of
from dure.training.timing import Timing, padded_positions, step_positions


@pytest.fixture(scope="module")
def given(tiny, cpu):
    """A tiny T5 with its rows and batches."""
    longer = {"tokenizer.encoder_max_len": 400, "training.max_steps": 15}
    experiment = tiny("t5", "full", gradient_accumulation_steps=2, epochs=3).with_(longer)
    family = load_family(experiment, lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    return family, corpus, family.batches(corpus.tokenizer, family.load_model(corpus.tokenizer, cpu))


def test_the_positions_of_every_step_are_those_of_its_batches(given):
    family, corpus, batches = given
    experiment = family.experiment
    assert experiment.training.group_by_length
    found = step_positions(experiment, corpus.train, batches, 1)
    sampler = sampler_of(experiment, corpus.train, batches, 1)
    cost, expected = batches.targets_of(corpus.train).cost, []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        loader = DataLoader(
            corpus.train, experiment.training.batch_size, sampler=sampler, collate_fn=batches.collate
        )
        sizes = [each["input_ids"].numel() + cost * each["labels"].numel() for each in loader]
        expected += [sum(sizes[at : at + 2]) for at in range(0, len(sizes), 2)]
    assert found == pytest.approx(expected[: len(found)])
    assert len(found) == len(expected) == 15
    assert len(set(found)) > 10


def test_a_run_of_any_length_is_looked_through_in_no_time(given):
    family, corpus, batches = given
    endless = family.experiment.with_({"training.epochs": 10**9, "training.max_steps": None})
    found = step_positions(endless, corpus.train, batches, 1)
    assert len(found) == 2000
    work = Work(10**12, found, validations=0, rows=0, saves=0)
    assert work.seconds(replace(TIMES, start=0.0, end=0.0, position=1.0)) == pytest.approx(
        10**12 * (1 + found.mean())
    )
    assert work.of_first(2001)[-1] == found.mean()


def test_a_micro_batch_has_the_positions_of_its_tensors(given):
    _, corpus, batches = given
    rows = corpus.train.select(range(4))
    batch = batches.collate(list(rows))
    cost = batches.targets_of(rows).cost
    assert padded_positions(rows, batches) == batch["input_ids"].numel() + cost * batch["labels"].numel()


TIMES = Times(start=2.0, step=1.0, position=0.0, first_validation=3.0, row=0.1, save=0.0, end=1.0)


@pytest.fixture
def timing(tmp_path, monkeypatch):
    """A run of ten steps and two validations of twenty rows, which may stop after five."""
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    work = Work(10, np.ones(10), validations=2, rows=20, saves=1)
    early = Work(5, np.ones(5), validations=1, rows=20, saves=0)
    return Timing(
        "here", "model", "fp32", "text x8", flops=6.0, slower=10.0, rows=2, work=work, earliest=early
    )


def test_a_run_like_one_before_it_takes_as_long(timing, cpu, tmp_path):
    assert timing.seconds(cpu, is_here=True) == (None, None, "no run like it was measured here yet")
    records = [{"kind": "eval", "step": 0, "seconds": 7.0, "untrained_runtime": 5.0}]
    records += [{"kind": "train", "step": step, "seconds": 7.0 + step} for step in range(1, 11)]
    records.append({"kind": "eval", "step": 10, "seconds": 19.0, "eval_runtime": 2.0})
    folder = _folder(tmp_path, records)
    timing.remember(folder, 20.0)
    (least, most), earliest, _ = timing.seconds(cpu, is_here=True)
    # 2 before the first step, 10 steps, 2 + 2 of validation and 3 more for the first one, 1 at the end.
    assert least < 17.0 < 20.0 < most
    assert most / least < 2
    assert earliest < least
    assert timing.seconds(cpu, is_here=False)[0] is None


def test_a_run_that_is_over_does_not_fail_where_its_times_cannot_be_kept(timing, tmp_path, monkeypatch):
    folder = _folder(
        tmp_path, [{"kind": "train", "step": step, "seconds": float(step)} for step in range(1, 11)]
    )
    (tmp_path / "cache" / PACE_FILE).mkdir(parents=True)
    timing.remember(folder, 10.0)
    monkeypatch.setenv("DURE_CACHE", str(folder.metrics))
    timing.remember(folder, 10.0)


def test_a_run_of_another_model_says_nothing_of_how_long_one_takes(timing, cpu, tmp_path):
    records = [{"kind": "train", "step": step, "seconds": float(step)} for step in range(1, 11)]
    timing.remember(_folder(tmp_path, records), 10.0)
    another = replace(timing, model="another")
    assert another.seconds(cpu, is_here=True) == (None, None, "no run like it was measured here yet")


def _folder(path, records):
    from dure.files import append_json_line
    from dure.runs.folder import RunFolder

    folder = RunFolder(path)
    for each in records:
        append_json_line(folder.metrics, each)
    return folder


def test_the_lengths_of_many_rows_are_read_at_once(given):
    family, corpus, batches = given
    many = corpus.train.select(np.arange(200_000) % len(corpus.train)).flatten_indices()
    once = family.experiment.with_({"training.max_steps": 2, "training.group_by_length": False})
    begun = time.process_time()
    step_positions(once, many, batches, 1)
    # Row by row it took 1.8 CPU seconds.
    assert time.process_time() - begun < 0.9
