"""Predicted classes of the same rows are compared: against references by hand, and by simulations of equals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from dure.metrics.paired_classes import mcnemar, paired_bootstrap


def predicted(seed, rows=400, noise=0.3):
    rng = np.random.default_rng(seed)
    labels = rng.choice(list("abc"), rows, p=[0.6, 0.3, 0.1])
    made = [np.where(rng.random(rows) < noise, rng.choice(list("abc"), rows), labels) for _ in range(2)]
    return labels.tolist(), *(each.tolist() for each in made)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "weighted_f1"])
def test_the_bootstrap_agrees_with_one_that_draws_rows_and_scores_them_by_scikit_learn(metric):
    labels, a, b = map(np.array, predicted(5, noise=0.4))
    found = paired_bootstrap(labels, a, b, num_draws=4000)[metric]
    score = {
        "accuracy": accuracy_score,
        "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
        "weighted_f1": lambda y, p: f1_score(y, p, average="weighted"),
    }[metric]
    assert found.value == pytest.approx(score(labels, a) - score(labels, b))
    rng, draws = np.random.default_rng(0), []
    for _ in range(400):
        rows = rng.integers(0, len(labels), len(labels))
        draws.append(score(labels[rows], a[rows]) - score(labels[rows], b[rows]))
    spread = np.std(draws)
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.35 * spread)
    again = paired_bootstrap(labels, a, b, num_draws=4000)[metric]
    assert again == found
    assert paired_bootstrap(labels, a, a)[metric].low == 0 == paired_bootstrap(labels, a, a)[metric].high


def test_the_bootstrap_covers_a_difference_of_zero_about_as_often_as_it_says():
    covered = [
        (found := paired_bootstrap(*predicted(seed), num_draws=300)["accuracy"]).low <= 0 <= found.high
        for seed in range(200)
    ]
    assert 0.90 <= np.mean(covered) <= 0.99


def test_mcnemar_is_the_sign_test_on_the_rows_where_one_alone_is_right():
    labels = ["x"] * 20
    a = ["x"] * 18 + ["y"] * 2
    b = ["y"] * 8 + ["x"] * 10 + ["x", "y"]
    # One alone is right on 8 rows for a, on 1 for b: 2 (C(9,0) + C(9,1)) / 2^9.
    assert mcnemar(labels, a, b) == pytest.approx(2 * (1 + 9) / 512)
    assert mcnemar(labels, a, a) == 1


def test_mcnemar_calls_equals_different_in_five_of_a_hundred_at_most():
    assert np.mean([mcnemar(*predicted(seed)) < 0.05 for seed in range(500)]) <= 0.07


def test_rows_that_do_not_pair_up_are_refused():
    for test in (mcnemar, paired_bootstrap):
        with pytest.raises(ValueError, match="not of the same rows"):
            test(["a"], ["a"], [])
