"""A metric knows which way it is better, and nothing guesses it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.errors import UserError
from dure.metrics.metric import Metric, definitions, known, recorded, undeclared

LOSS = Metric("eval_loss", "min")
ACCURACY = Metric("eval_accuracy", "max", "share")
F1 = Metric("eval_f1[class]", "max", "share")
SCORES = st.lists(st.none() | st.floats(allow_infinity=False), max_size=8)


@given(SCORES, st.sampled_from([LOSS, ACCURACY]))
def test_the_best_is_the_first_of_equals_and_never_nan_or_none(scores, metric):
    place = metric.best(dict(enumerate(scores)))
    numbers = [score for score in scores if score is not None and not math.isnan(score)]
    if not numbers:
        assert place is None
    else:
        assert place == scores.index((max if metric.higher_is_better else min)(numbers))


@given(SCORES, st.sampled_from([LOSS, ACCURACY]))
def test_scores_are_ranked_best_first_and_what_is_no_number_comes_last(scores, metric):
    order = metric.ranked(dict(enumerate(scores)))
    ranked = [scores[place] for place in order]
    numbers = [score for score in ranked if score is not None and not math.isnan(score)]
    assert sorted(order) == list(range(len(scores)))
    assert ranked[: len(numbers)] == numbers
    assert numbers == sorted(numbers, reverse=metric.higher_is_better)


def test_better_and_gain_follow_the_direction():
    assert LOSS.better(0.1, 0.2)
    assert not ACCURACY.better(0.1, 0.2)
    assert not LOSS.better(math.nan, 5.0)
    assert LOSS.better(5.0, math.nan)
    assert not LOSS.better(0.2, 0.2)
    assert (LOSS.gain(0.25, 0.5), ACCURACY.gain(0.25, 0.5)) == (0.25, -0.25)
    assert (LOSS.sentence, ACCURACY.sentence) == ("lower is better", "higher is better")
    assert ACCURACY.score(ACCURACY.cost(0.5)) == 0.5


def test_figures_of_a_class_are_what_their_figure_is_and_every_run_has_its_own():
    assert known("eval_f1[긍정]", [F1]) == Metric("eval_f1[긍정]", "max", "share")
    assert known("eval_f1", [F1]) is None
    assert known("seconds", []) == Metric("seconds", "min")
    assert known("eval_agreement", [ACCURACY]) is None


def test_a_record_defines_its_metrics_and_what_it_does_not_has_no_direction():
    record = {"definitions": definitions([Metric("eval_bentham_mae", "min"), ACCURACY])}
    assert recorded(record, "eval_bentham_mae") == Metric("eval_bentham_mae", "min")
    assert recorded(record, "eval_accuracy").in_percent
    assert recorded({"metric": "eval_macro_f1", "direction": "max"}, "eval_macro_f1").higher_is_better
    assert recorded({"metrics": ["a", "b"], "directions": ["max", "min"]}, "b").direction == "min"
    assert recorded(record, "eval_surprise").direction is None


def test_an_undeclared_metric_can_be_shown_and_not_compared():
    assert undeclared("test_macro_f1").in_percent
    assert not undeclared("eval_bentham_mae").in_percent
    for ask in (lambda: undeclared("eval_perplexity").cost(1.0), lambda: undeclared("my_loss").sentence):
        with pytest.raises(UserError, match=r"has no direction.*higher_is_better|has no direction"):
            ask()
