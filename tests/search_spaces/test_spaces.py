"""The search spaces that come with dure are what their readers think they are."""

from __future__ import annotations

import pytest

from dure.cli.json_schema import json_schema
from dure.config import available, load_experiment
from dure.config.loading import load_space
from dure.errors import UserError

LR = "training.learning_rate"


@pytest.mark.parametrize("name", available("space"))
def test_every_shipped_space_fits_every_shipped_experiment(name):
    space = load_space(name)
    assert space.description
    for experiment in available("experiment"):
        base = load_experiment(experiment)
        for point in (space.grid(2)[0], space.grid(2)[-1]):
            tried = base.with_({"training.scheduler_options": {}} | point, "the space")
            assert tried.training.learning_rate == point[LR]


def test_the_default_space_is_the_learning_rate_in_three_decades():
    assert load_space("learning_rate").grid(4) == [{LR: rate} for rate in (1e-5, 1e-4, 1e-3, 1e-2)]


def test_a_longer_grid_holds_the_shorter_one():
    space = load_space("learning_rate")
    assert all(point in space.grid(9) for point in space.grid(5))


def test_a_parameter_is_only_in_the_grid_where_its_condition_holds():
    points = load_space("optimizer").grid(2)
    assert all(
        ("training.warmup_ratio" in point) == (point["training.scheduler"] != "constant") for point in points
    )
    assert len(points) == 2 * (2 * 2 + 1) * 2


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("a.b: {type: log_unifrm, low: 1, high: 2}", "one of"),
        ("a.b: {type: log_uniform, low: 0, high: 2}", "more than 0"),
        ("a.b: {type: uniform, low: 2, high: 1}", "not below"),
        ("a.b: {type: choice, values: [1, 1]}", "twice"),
        ("a.b: {type: uniform, low: 1, high: 2, when: {a.c: [1]}}", "no choice of this space"),
        (
            "{a.b: {type: choice, values: [1, 2], when: {a.c: [1]}}, "
            "a.c: {type: choice, values: [1, 2], when: {a.b: [1]}}}",
            "circle",
        ),
        ("experiment.seed: {type: int, low: 1, high: 2}", "starting weights"),
    ],
)
def test_a_wrong_space_says_what_is_wrong(parameters, said, tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(f"parameters:\n  {parameters}\n", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_space(str(file))


def test_the_schema_of_a_space_names_every_kind():
    kinds = set(json_schema("space")["$defs"])
    assert {"LogUniform", "Uniform", "Integer", "Choice"} <= kinds
