"""Pairs of summaries whose right one only the dialogue tells."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy
import pytest
from scipy.sparse import vstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from trainables.samples.preferences import preference_corpus


@pytest.fixture(scope="module")
def rows():
    return preference_corpus(num_train=6000, num_dev=0, num_test=0)["train"]


def is_right(ahead):
    """Return the share of pairs with the better answer ahead; ties count half."""
    return float(numpy.mean((ahead > 0) + (ahead == 0) / 2))


def parts_of(text):
    """Return the words of a text, and each with the one after it."""
    words = text.split()
    return {*words, *pairwise(words)}


@pytest.mark.parametrize("wrong", ["person", "thing", "outcome"])
def test_no_word_and_no_length_is_more_frequent_in_right_summaries(rows, wrong):
    pairs = [(row.chosen, row.rejected) for row in rows if row.wrong == wrong]
    ahead = numpy.array([len(chosen) - len(rejected) for chosen, rejected in pairs])
    assert is_right(ahead) == pytest.approx(0.5, abs=0.05)
    only: Counter[tuple[object, int]] = Counter()
    for chosen, rejected in pairs:
        one, other = parts_of(chosen), parts_of(rejected)
        only.update((part, 1) for part in one - other)
        only.update((part, -1) for part in other - one)
    for part, _ in only:
        right, false = only[part, 1], only[part, -1]
        # A sign test: of thousands of parts, chance lets none be five standard deviations off.
        assert abs(right - false) <= max(5 * (right + false) ** 0.5, 12), (part, right, false)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["person", "thing", "outcome"])
def test_a_classifier_of_summaries_alone_stays_at_chance(rows, wrong):
    chosen, rejected = zip(*((row.chosen, row.rejected) for row in rows if row.wrong == wrong), strict=True)
    counts = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2)).fit([*chosen, *rejected])
    apart = counts.transform(chosen) - counts.transform(rejected)
    ahead = numpy.zeros(len(chosen))
    for train, test in KFold(4, shuffle=True, random_state=0).split(chosen):
        signs = numpy.repeat([1, -1], len(train))  # each pair in both orders
        model = LogisticRegression(fit_intercept=False, max_iter=300)
        model.fit(vstack([apart[train], -apart[train]]), signs)
        ahead[test] = apart[test] @ model.coef_[0]
    assert is_right(ahead) == pytest.approx(0.5, abs=0.045)  # four standard errors of 2,000 pairs


def test_what_is_wrong_is_wrong_wherever_the_summary_names_it(rows):
    # A day in the request and another in the answer to it would give the wrong summary away.
    asked = [row for row in rows if row.wrong == "thing" and "휴가를 허락하기로" in row.rejected]
    assert asked
    for row in asked:
        request, _, answer = row.rejected.partition(". ")
        (day,) = (word for word in request.split() if word.endswith("요일에"))
        assert day.removesuffix("에") in answer
