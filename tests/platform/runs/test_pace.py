"""The parts of a run are told apart by its records, and make up the time of the next one."""

from __future__ import annotations

import numpy as np
import pytest

from dure.files import append_json_line
from dure.runs.pace import PACE_FILE, Pace, Times, Work, alike, known, remember, times_of

TRUE = Times(start=3.0, step=0.5, position=0.01, first_validation=4.0, row=0.2, save=0.7, end=2.5)


def records_of(positions, times, *, every, log_every=1, rows=10, untrained=True, slow_start=2.0):
    """Write what a run records that takes exactly so long; its first step takes two seconds more."""
    clock, records, first = times.start - slow_start, [], times.first_validation

    def validate(step, name):
        nonlocal clock, first
        took = rows * times.row + first
        clock, first = clock + took, 0.0
        records.append({"kind": "eval", "step": step, "seconds": clock, f"{name}_runtime": took})

    if untrained:
        validate(0, "untrained")
    for step, size in enumerate(positions, 1):
        clock += times.step + times.position * size + (slow_start if step == 1 else 0.0)
        clock += times.save if step > every and step % every == 1 else 0.0
        if step % log_every == 0 or step % every == 0:
            records.append({"kind": "train", "step": step, "seconds": clock})
        if step % every == 0:
            validate(step, "eval")
    return records, clock + times.end


@pytest.mark.parametrize("untrained", [True, False])
def test_every_part_of_a_run_is_told_from_the_others(untrained):
    positions = np.random.default_rng(0).integers(50, 200, 20).astype(float)
    records, seconds = records_of(positions, TRUE, every=10, untrained=untrained)
    found = times_of(records, seconds, positions, rows=10)
    assert vars(found) == pytest.approx(vars(TRUE))


def test_a_longer_run_takes_what_its_own_steps_and_rows_take():
    random = np.random.default_rng(1)
    few, many = random.integers(50, 100, 20).astype(float), random.integers(100, 400, 200).astype(float)
    found = times_of(*records_of(few, TRUE, every=10), few, rows=10)
    _, seconds = records_of(many, TRUE, every=50, rows=40)
    assert Work(len(many), many, validations=5, rows=40, saves=3).seconds(found) == pytest.approx(seconds)


def test_records_of_every_tenth_step_tell_as_much():
    positions = np.random.default_rng(2).integers(50, 200, 120).astype(float)
    records, seconds = records_of(positions, TRUE, every=40, log_every=10)
    found = times_of(records, seconds, positions, rows=10)
    assert vars(found) == pytest.approx(vars(TRUE))


def test_steps_of_one_length_take_what_they_took():
    positions = np.full(20, 80.0)
    found = times_of(*records_of(positions, TRUE, every=10), positions, rows=10)
    assert found.step + 80 * found.position == pytest.approx(TRUE.step + 80 * TRUE.position)


def test_without_a_step_nothing_is_known():
    assert times_of([{"kind": "eval", "step": 0, "seconds": 1.0}], 1.0, np.ones(5), rows=10) is None


def test_paces_are_those_of_the_same_run(tmp_path):
    assert known(tmp_path) == []
    paces = [Pace("card", f"model {size}", "bf16", "text", times=TRUE) for size in range(6, 13)]
    for each in paces:
        remember(tmp_path, each)
    append_json_line(tmp_path / PACE_FILE, {"device": "card", "seconds": 1.0})  # another version's
    append_json_line(tmp_path / PACE_FILE, {**vars(paces[0]), "times": {"seconds": 1.0}})
    with (tmp_path / PACE_FILE).open("ab") as file:
        file.write(
            b'{"device": "ca\n\0\0\n[1]\n'
        )  # two machines that wrote at once, into a folder that both see
    append_json_line(tmp_path / PACE_FILE, {"device": "card"})
    assert known(tmp_path) == paces
    assert alike(paces, ("card", "model 9", "bf16", "text")) == [paces[3]]
    assert alike(paces, ("card", "model 9", "bf16", "logits")) == []
