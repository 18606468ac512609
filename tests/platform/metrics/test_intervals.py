"""What the rows of a table leave open of a macro F1, which rests on the rarest of its classes."""

from __future__ import annotations

import numpy as np
import pytest

from dure.metrics.classification import class_figures, classification_report
from dure.metrics.intervals import difference_of_shares, rows_behind, share_interval


def confusion(shares, recalls):
    """Return the probability of every true class with every predicted one; errors fall on the others by their shares."""
    table = np.zeros((len(shares), len(shares)))
    for place, (share, recall) in enumerate(zip(shares, recalls, strict=True)):
        others = np.where(np.arange(len(shares)) == place, 0.0, shares)
        table[place] = share * (1 - recall) * others / others.sum()
        table[place, place] = share * recall
    return table


def figures_of(counts, where="eval_"):
    """Return what validation measures of rows with these confusions."""
    labels, predictions = (
        np.repeat(each, counts.ravel()).tolist() for each in np.indices(counts.shape).reshape(2, -1)
    )
    report = classification_report([*map(str, labels)], [*map(str, predictions)])
    named = {**report, **class_figures(report, [*map(str, range(len(counts)))])}
    return {f"{where}{name}": value for name, value in named.items() if name != "per_class"}


@pytest.mark.parametrize(
    ("shares", "recalls", "num_rows"),
    [((0.98, 0.02), (0.99, 0.5), 1000), ((0.5, 0.3, 0.15, 0.03, 0.02), (0.9, 0.8, 0.7, 0.4, 0.3), 1000)],
)
def test_the_interval_of_a_macro_f1_holds_the_truth_where_classes_are_rare(shares, recalls, num_rows):
    table, draw = confusion(shares, recalls), np.random.default_rng(0)
    truth = figures_of(np.rint(1e5 * table).astype(int))["eval_macro_f1"]
    drawn = [figures_of(draw.multinomial(num_rows, table.ravel()).reshape(table.shape)) for _ in range(200)]
    scores = [each["eval_macro_f1"] for each in drawn]
    worth = [rows_behind("eval_macro_f1", each, num_rows) for each in drawn]

    def held(rows):
        ends = [share_interval(*each, 0.95) for each in zip(scores, rows, strict=True)]
        return np.mean([low <= truth <= high for low, high in ends])

    assert held(worth) > 0.9
    assert held([num_rows] * len(scores)) < 0.75, "that of a share of hits does not"
    pairs = zip(scores[::2], scores[1::2], worth[::2], worth[1::2], strict=True)
    apart = [
        not low <= 0 <= high
        for a, b, c, d in pairs
        for low, high in [difference_of_shares(a, b, min(c, d), 0.95)]
    ]
    assert np.mean(apart) < 0.1, "two draws of one model are told apart as rarely as the level says"


def test_a_share_of_hits_and_a_macro_f1_of_large_classes_are_worth_their_rows():
    even = figures_of(np.array([[40, 10], [10, 40]]))
    assert rows_behind("eval_macro_f1", even, 100) == rows_behind("eval_accuracy", even, 100) == 100
    rare = figures_of(np.array([[960, 10], [15, 15]]), where="test_")
    assert rows_behind("test_accuracy", rare, 1000) == 1000
    assert 50 < rows_behind("test_macro_f1", rare, 1000) < 150
    assert rows_behind("eval_macro_f1", {"eval_macro_f1": 0.7}, 1000) == 1000, (
        "nothing is known of its classes"
    )
    never_right = figures_of(np.array([[97, 0], [3, 0]]))
    assert 1 <= rows_behind("eval_macro_f1", never_right, 100) <= 100
