"""Figures of rows with several labels, against scikit-learn."""

from __future__ import annotations

import numpy
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score

from dure.errors import UserError
from dure.metrics.classification import multilabel_report, trivial_multilabel

NAMES = ("기쁨", "슬픔", "분노", "없음")


@pytest.fixture
def answers():
    rng = numpy.random.default_rng(0)
    truth, predicted = rng.random((50, 4)) < 0.3, rng.random((50, 4)) < 0.4
    predicted[:20] = truth[:20]
    return truth, predicted


def test_figures_are_those_of_scikit_learn(answers) -> None:
    truth, predicted = answers
    report = multilabel_report(truth, predicted, NAMES)
    assert report["subset_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert report["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert report["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    found = [report["per_class"][name]["precision"] for name in NAMES]
    assert found == pytest.approx(list(precision_score(truth, predicted, average=None)))
    assert report["per_class"]["분노"]["support"] == truth[:, 2].sum()


def test_a_label_that_occurs_nowhere_does_not_lower_macro_f1(answers) -> None:
    truth, predicted = (each.copy() for each in answers)
    truth[:, 3] = predicted[:, 3] = False
    report = multilabel_report(truth, predicted, NAMES)
    assert report["macro_f1"] == pytest.approx(f1_score(truth[:, :3], predicted[:, :3], average="macro"))
    assert report["per_class"]["없음"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_no_row_is_refused() -> None:
    nothing = numpy.zeros((0, 4), dtype=bool)
    with pytest.raises(UserError, match="no prediction"):
        multilabel_report(nothing, nothing, NAMES)


def test_the_trivial_predictor_gives_the_shares_of_training(answers) -> None:
    train, dev = answers
    shares = (train.sum(axis=0) + 1) / 52
    figures = trivial_multilabel(train, dev, threshold=float(shares[0]))
    expected = numpy.mean(
        [log_loss(dev[:, place], numpy.full(50, share)) for place, share in enumerate(shares)]
    )
    assert figures["eval_loss"] == pytest.approx(expected)
    given = numpy.tile(shares >= shares[0], (50, 1))
    assert figures["eval_micro_f1"] == pytest.approx(f1_score(dev, given, average="micro"))
