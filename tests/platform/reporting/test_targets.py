"""A target is met or missed by what its metric calls better, and says so of every kind of study."""

from __future__ import annotations

import math

import pytest

from dure.config import rehearsal_of
from dure.errors import UserError
from dure.family import load_family
from dure.metrics.metric import Metric
from dure.metrics.targets import Target
from dure.reporting.targets import missed, target_line, target_sentence
from dure.studies.study import read_results, stored_kind
from tests.platform.pages.left_folders import STUDIES

F1 = Target(Metric("eval_macro_f1", "max", "share"), 0.94)
LOSS = Target(Metric("eval_loss", "min"), 0.5)


@pytest.mark.parametrize(
    ("target", "score", "met", "short_by"),
    [(F1, 0.94, True, 0.0), (F1, 0.95, True, 0.0), (F1, 0.912, False, 0.028), (LOSS, 0.4, True, 0.0), (LOSS, 0.7, False, 0.2)],
)  # fmt: skip
def test_the_direction_is_the_metrics_own(target, score, met, short_by):
    found = target.reached({target.metric.name: score})
    assert found.met is met
    assert found.short_by == pytest.approx(short_by)


@pytest.mark.parametrize("score", [None, math.nan, "text"])
def test_without_a_score_a_target_is_missed(score):
    found = F1.reached({"eval_macro_f1": score})
    assert (found.met, found.score, found.short_by) == (False, None, None)
    assert "no such score" in target_sentence(found)
    assert "macro F1 94.00 %" in missed([found, LOSS.reached({"eval_loss": 0.1})])


def test_the_words_say_by_how_much_it_is_missed():
    short = F1.reached({"eval_macro_f1": 0.912}, "kobert")
    assert target_line(short) == "target macro F1 94.00 %: short by 2.80 percentage points"
    assert target_sentence(short) == (
        "Target missed: at least macro F1 94.00 %; kobert has 91.20 %, short by 2.80 percentage points."
    )
    assert target_sentence(LOSS.reached({"eval_loss": 0.4})) == (
        "Target met: at most eval loss 0.5000; it is 0.4000."
    )
    assert missed([LOSS.reached({"eval_loss": 0.4})]) == ""


def test_a_miniature_meets_no_target_of_the_real_model(tiny):
    [target] = load_family(tiny("bert").with_({"targets": {"eval_accuracy": 0.9}})).targets
    found = target.reached({"eval_accuracy": 0.95})
    assert target_line(found) == "target accuracy 90.00 %: met by a miniature"
    assert target_sentence(found) == (
        "Target met by a miniature, which says nothing of the model that it is of: at least accuracy 90.00 %; it is 95.00 %."
    )


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("eval_macrof1", 0.9, "try: eval_macro_f1"),
        ("eval_accuracy", 94.0, "try: targets.eval_accuracy=0.94"),
        ("eval_support[joy]", 1.0, "one of eval_loss"),
        ("seconds", 60.0, "one of eval_loss"),
    ],
)
def test_what_cannot_be_a_target_is_refused_with_a_remedy(tiny, key, value, hint):
    family = load_family(tiny("bert").with_({"targets": {key: value}}))
    with pytest.raises(UserError) as error:
        _ = family.targets
    assert f"targets.{key}" in str(error.value)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "score"),
    [
        ("batch", "one", 0.8125), ("sweep", "trial_004", 0.6 + 0.25 * 4 / 6), ("progressive", "rate_1, stage_2_100pct,", 0.7731),
        ("crossval", "one", 0.74 - 0.013), ("unified", "u", 0.8125),
    ],
)  # fmt: skip
def test_a_study_is_held_against_its_winner_or_mean(tmp_path, kind, name, score):
    STUDIES[kind](tmp_path)
    winner, figures = stored_kind(tmp_path).kind_of().winner(read_results(tmp_path))
    assert winner == name
    assert figures["eval_accuracy"] == pytest.approx(score)


def test_a_rehearsed_study_says_that_a_miniature_reached_it(tiny, tmp_path):
    STUDIES["batch"](tmp_path)
    plan = stored_kind(tmp_path)
    real = tiny("bert").with_(
        {"targets": {"eval_accuracy": 0.8}, "rehearsal.enabled": False, "experiment.name": "one"}
    )
    for shape, is_rehearsal in ((lambda each: each, False), (rehearsal_of, True)):
        [reached] = plan.kind_of()(plan, [real], shape).reached(read_results(tmp_path))
        assert (reached.met, reached.is_rehearsal) == (True, is_rehearsal)


def test_a_target_is_not_dropped_because_the_winner_is_an_experiment_without_one(tiny, tmp_path):
    STUDIES["batch"](tmp_path)
    plan = stored_kind(tmp_path)
    winner, other = (
        tiny("bert").with_({"targets": targets, "experiment.name": name})
        for name, targets in (("one", {}), ("two", {"eval_accuracy": 0.99}))
    )
    [reached] = plan.kind_of()(plan, [winner, other], lambda each: each).reached(read_results(tmp_path))
    assert (reached.of, reached.met) == ("one", False)
    assert missed([reached]).startswith("--require-targets: missed accuracy")
