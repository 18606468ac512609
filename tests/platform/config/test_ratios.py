"""Ratios are exact, however they are written, and schedules of them end where they should."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dure.cli.json_schema import json_schema
from dure.config import dump_yaml, load_experiment
from dure.config.ratios import MAX_DENOMINATOR, RATIO_PATTERN, as_number, as_ratio, percent_label, schedule
from dure.config.scalars import NAME_PATTERN
from dure.errors import UserError

ratios = st.fractions(
    min_value=Fraction(1, MAX_DENOMINATOR), max_value=1, max_denominator=MAX_DENOMINATOR
) | st.integers(1, 100).map(lambda percent: Fraction(percent, 100))


@pytest.mark.parametrize(
    ("written", "ratio"),
    [
        (0.1, "1/10"), (0.07, "7/100"), (1, "1"), (1.0, "1"), (1e-6, "1/1000000"),
        ("0.1", "1/10"), (" .5 ", "1/2"), ("1", "1"), ("1e-3", "1/1000"), ("30%", "3/10"), ("2.5 %", "1/40"),
        ("100%", "1"), ("1/3", "1/3"), ("2 / 6", "1/3"), ("3/3", "1"), (Fraction(2, 7), "2/7"),
    ],
)  # fmt: skip
def test_a_ratio_is_what_its_writing_says(written, ratio):
    assert as_ratio(written) == Fraction(ratio)


@pytest.mark.parametrize(
    "written",
    [0, -0.1, 1.5, 30, "0", "0%", "101%", "-10%", "4/3", "1/0", "0/3", "", "%", "/", "a tenth", "1/2/3", "0,1",
     "1e-999999999", "1e999999999", "1/" + "9" * 5000, 1e-30, "0." + "1" * 40, True, None, [0.1],
     float("nan"), float("inf")],
)  # fmt: skip
def test_what_is_no_ratio_is_refused_with_the_ways_to_write_one(written):
    with pytest.raises(ValueError, match=r"above 0 and up to 1, such as 0\.1, 10% or 1/10"):
        as_ratio(written)


@given(ratio=ratios)
def test_a_ratio_comes_back_from_yaml_and_json_exactly(ratio):
    written = as_number(ratio)
    assert as_ratio(json.loads(json.dumps(written))) == ratio
    assert as_ratio(yaml.safe_load(yaml.safe_dump(written))) == ratio
    assert isinstance(written, (int, float)) or re.search(RATIO_PATTERN, written)


def test_a_short_ratio_is_written_as_a_number_and_others_as_fractions():
    assert [as_number(Fraction(text)) for text in ("1", "1/10", "1/40", "1/3")] == [1, 0.1, 0.025, "1/3"]


@pytest.mark.parametrize("override", ["0.1", "10%", "1/3", "1"])
def test_an_experiment_reads_and_writes_its_ratio(override, tmp_path: Path):
    experiment = load_experiment("kobart_baseline", [f"data.train_ratio={override}"])
    assert experiment.data.train_ratio == as_ratio(override)
    (tmp_path / "written.yaml").write_text(dump_yaml(experiment), encoding="utf-8")
    assert load_experiment(str(tmp_path / "written.yaml")) == experiment
    validator = jsonschema.Draft202012Validator(json_schema("experiment"))
    validator.validate(experiment.model_dump(mode="json"))


def test_a_wrong_ratio_of_an_experiment_is_told_with_its_place():
    with pytest.raises(UserError, match=r"data\.train_ratio' is 30") as caught:
        load_experiment("kobart_baseline", ["data.train_ratio=30"])
    assert "30%" not in str(caught.value)
    assert "10%" in str(caught.value)


def test_the_json_schema_shows_the_default_as_a_number():
    field = json_schema("experiment")["$defs"]["DataConfig"]["properties"]["train_ratio"]
    assert field["default"] == 1
    assert isinstance(field["default"], int)
    assert "same for every class" in field["description"]


def test_tenths_up_to_one_are_ten_ratios_named_by_their_percent():
    stages = schedule(0.1, 0.1, 1.0)
    assert stages == tuple(Fraction(tenth, 10) for tenth in range(1, 11))
    assert [percent_label(ratio) for ratio in stages] == [str(ten) for ten in range(10, 101, 10)]


@pytest.mark.parametrize(
    ("start", "step", "end", "expected"),
    [
        (0.1, 0.4, 1, "1/10 1/2 9/10 1"), ("30%", "10%", 0.6, "3/10 2/5 1/2 3/5"), (1, 0.1, 1, "1"),
        (0.5, 1, 1, "1/2 1"), ("1/3", "1/3", 1, "1/3 2/3 1"),
    ],
)  # fmt: skip
def test_a_schedule_always_ends_at_its_end(start, step, end, expected):
    assert schedule(start, step, end) == tuple(map(Fraction, expected.split()))


@given(
    start=st.integers(1, 1000).map(lambda n: Fraction(n, 1000)),
    step=st.integers(1, 1000).map(lambda n: Fraction(n, 1000)),
    end=st.integers(1, 1000).map(lambda n: Fraction(n, 1000)),
)
def test_a_schedule_rises_by_the_step_from_start_to_end(start, step, end):
    if start > end:
        with pytest.raises(ValueError, match="above the end"):
            schedule(start, step, end)
        return
    stages = schedule(start, step, end)
    assert (stages[0], stages[-1]) == (start, end)
    gaps = [after - before for before, after in pairwise(stages)]
    assert all(gap == step for gap in gaps[:-1])
    assert all(0 < gap <= step for gap in gaps[-1:])


def test_a_schedule_without_end_is_refused():
    with pytest.raises(ValueError, match="more than 1,000"):
        schedule(0.1, 1e-9)


@given(one=ratios, other=ratios)
def test_labels_are_safe_in_file_names_and_different_for_different_ratios(one, other):
    assert re.fullmatch(NAME_PATTERN, percent_label(one))
    assert (percent_label(one) == percent_label(other)) == (one == other)


def test_labels_are_short():
    labels = [percent_label(Fraction(text)) for text in ("1/1000000", "1/40", "1/3", "1/8", "1")]
    assert labels == ["0.0001", "2.5", "1of3", "12.5", "100"]
