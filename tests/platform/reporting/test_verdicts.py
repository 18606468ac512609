"""The sentences of comparisons say who is better, or that nobody is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dure.metrics.metric import Metric
from dure.metrics.paired import PairedDifference
from dure.reporting.verdicts import difference_sentence, run_sentences

ROUGE, LOSS = Metric("test_rouge1", "max", "share"), Metric("test_loss", "min")
FOUND = PairedDifference(
    value=0.012, low=0.004, high=0.021, level=0.95, p_value=0.001, p_holm=0.006,
    num_rows=600, num_seeds=5, wins=300, ties=100, losses=200,
)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "metric", "sentence"),
    [
        (
            FOUND,
            ROUGE,
            "A is better than B by 1.20 points of test ROUGE-1, 95 % between 0.40 and 2.10 "
            "(Student's t over 600 rows and 5 seeds, p = 0.006 by Holm).",
        ),
        (
            replace(FOUND, value=-0.012, low=-0.021, high=-0.004, p_value=1e-7, p_holm=None, num_seeds=1),
            LOSS,
            "B is better than A by 0.0120 of test loss, 95 % between 0.0040 and 0.0210 "
            "(paired bootstrap over 600 rows, permutation test p < 0.0001).",
        ),
        (
            replace(FOUND, low=-0.001, p_holm=0.07),
            ROUGE,
            "A and B cannot be told apart by test ROUGE-1: +1.20 points, 95 % between -0.10 and +2.10 "
            "(Student's t over 600 rows and 5 seeds, p = 0.07 by Holm).",
        ),
        (
            replace(FOUND, value=0, low=0, high=0, p_value=1, wins=0, losses=0, ties=600, num_seeds=1),
            ROUGE,
            "A and B have the same test ROUGE-1 on every one of 600 rows.",
        ),
        (
            replace(FOUND, low=0.012, high=0.012, p_value=0.5, p_holm=None, num_rows=1, num_seeds=2),
            ROUGE,
            "A and B cannot be told apart by test ROUGE-1: +1.20 points, the same each time "
            "(permutation test over 2 seeds, p = 0.5).",
        ),
    ],
)
def test_a_sentence_says_who_is_better_by_how_much_and_how_sure_that_is(found, metric, sentence):
    assert difference_sentence("A", "B", found, metric) == sentence


def test_a_run_says_what_the_test_rows_leave_open_and_that_a_gain_within_it_is_not_certain():
    accuracy = Metric("eval_accuracy", "max", "share")
    figures = {
        "eval_accuracy": 0.80, "baseline_accuracy": 0.50, "num_dev_rows": 60,
        "test_accuracy": 0.55, "baseline_test_accuracy": 0.50, "num_test_rows": 60,
    }  # fmt: skip
    validated, trivial, tested = run_sentences(accuracy, figures)
    assert "on 60 validation rows" in validated
    assert trivial.endswith("the model is 30.00 percentage points better.")
    assert tested.startswith(
        "On 60 test rows, which chose nothing: accuracy 55.00 %; its 95 % interval, as of a share of hits (Wilson), is "
        "42.49 to 66.91."
    )
    assert tested.endswith(
        "the model is 5.00 percentage points better, which is within the interval and no certain difference."
    )


def test_the_interval_of_a_mean_over_test_rows_is_that_of_their_scores():
    rouge = Metric("eval_rouge_sum", "max", "percent")
    figures = {
        "eval_rouge_sum": 0.57,
        "num_dev_rows": 4,
        "test_rouge_sum": 0.55,
        "baseline_test_rouge_sum": 0.54,
    }
    said = run_sentences(rouge, figures, [0.5, 0.6, 0.5, 0.6])[-1]
    assert "ROUGE sum 55.00 %; its 95 % interval, by bootstrap over rows, is 50.00 to 60.00." in said
    assert "no certain difference" in said
