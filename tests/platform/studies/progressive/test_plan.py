"""A progressive study as data: its stages' names, what it may not be, and that its file loads back."""

from __future__ import annotations

from fractions import Fraction

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dure.config import dump_yaml
from dure.config.ratios import schedule
from dure.studies.progressive.plan import ProgressiveStudy, stage_name

shares = st.fractions(min_value=Fraction(1, 1000), max_value=1, max_denominator=1000)


def study(**values) -> ProgressiveStudy:
    return ProgressiveStudy.model_validate({"name": "grow", "experiment": "bert", **values})


def test_ten_steps_of_a_tenth_are_named_up_to_90_and_100_percent():
    names = [stage_name(number, ratio) for number, ratio in enumerate(study().ratios, 1)]
    assert names == [f"stage_{number}_{10 * number}pct" for number in range(1, 11)]
    assert names[-2:] == ["stage_9_90pct", "stage_10_100pct"]


@given(start=shares, step=shares)
def test_every_stage_has_a_name_of_its_own_that_is_a_plain_folder(start, step):
    ratios = schedule(start, step)
    names = [stage_name(number, ratio) for number, ratio in enumerate(ratios, 1)]
    assert len({name.split("_", 2)[2] for name in names}) == len(ratios)
    assert not any(set(name) - set("abcdefghijklmnopqrstuvwxyz_.0123456789") for name in names)
    assert names[-1].endswith("_100pct")


@given(
    ratios=st.sets(shares, min_size=1, max_size=8).map(sorted),
    starts=st.booleans(),
    epochs=st.integers(1, 9),
    rates=st.lists(st.floats(1e-7, 1), min_size=1, max_size=4, unique=True),
    reduction=st.integers(1, 9),
    gain=st.none() | st.floats(0, 1),
    memory=st.none() | st.integers(1, 10**6),
)
def test_its_yaml_loads_back_into_an_equal_study(ratios, starts, epochs, rates, reduction, gain, memory):
    before = study(
        ratios=ratios,
        start_ratio=ratios[0] if starts else None,
        epochs_per_stage=epochs,
        candidates=[{"training.learning_rate": rate, "lora": None} for rate in rates],
        reduction=reduction,
        min_gain=gain,
        on_baseline="warn",
        max_memory_mb=memory,
    )
    assert ProgressiveStudy.model_validate(yaml.safe_load(dump_yaml(before))) == before


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ratios": [0.1, 0.1]}, "ratios"),
        ({"ratios": [0.5, 0.2]}, "ratios"),
        ({"ratios": []}, "ratios"),
        ({"ratios": [0.5, 1.1]}, "ratios"),
        ({"candidates": []}, "candidates"),
        ({"candidates": [{"a": {"b": 1}}, {"a.b": 1}]}, "twice"),
        ({"ratios": [0.1, 0.5], "start_ratio": 0.3}, "start_ratio 0.3 is none of the ratios"),
        ({"candidates": [{"a": 1}, {"b": 1}, {"a": 1}]}, "twice"),
        ({"epochs_per_stage": 0}, "epochs_per_stage"),
        ({"reduction": 0}, "reduction"),
        ({"min_gain": -0.1}, "min_gain"),
        ({"max_memory_mb": 0}, "max_memory_mb"),
        ({"on_baseline": "ignore"}, "on_baseline"),
    ],
)
def test_what_it_cannot_be_is_refused(values, said):
    with pytest.raises(ValidationError, match=said):
        study(**values)


def test_a_lone_candidate_bears_the_studys_name_and_several_have_numbers():
    assert study().names() == ["grow"]
    several = study(candidates=[{"training.learning_rate": rate} for rate in (0.1, 0.2)])
    assert several.names() == ["candidate_1", "candidate_2"]
