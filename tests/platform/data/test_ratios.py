"""The rows of a ratio: nested, of every class alike, and always some."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import datasets
import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.config.ratios import schedule
from dure.data.ratios import class_codes, joined_classes, nested_rows

ratios = st.fractions(min_value=Fraction(1, 10**6), max_value=1, max_denominator=10**6) | st.integers(
    1, 10
).map(lambda tenth: Fraction(tenth, 10))
seeds = st.integers(0, 2**32 - 1)
labels = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60) | st.lists(
    st.integers(0, 3).map(lambda n: "a" * n + "b"), min_size=1, max_size=200
)


@given(classes=labels | st.integers(1, 50).map(lambda n: [None] * n), ratio=ratios, other=ratios, seed=seeds)
def test_a_smaller_part_lies_within_a_larger_one(classes, ratio, other, seed):
    less, more = (nested_rows(len(classes), each, seed, classes) for each in sorted((ratio, other)))
    assert set(less.tolist()) <= set(more.tolist())


@given(classes=labels, ratio=ratios, seed=seeds)
def test_every_class_is_within_one_row_of_its_share(classes, ratio, seed):
    rows = nested_rows(len(classes), ratio, seed, classes)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    assert len(rows) >= 1
    chosen = [classes[row] for row in rows]
    for name in set(classes):
        share = ratio * classes.count(name)
        assert floor(share) <= chosen.count(name) <= max(ceil(share), 1)


@given(classes=labels, seed=seeds)
def test_ratio_one_is_every_row(classes, seed):
    assert nested_rows(len(classes), Fraction(1), seed, classes).tolist() == list(range(len(classes)))


@given(classes=labels, ratio=ratios, seed=seeds)
def test_one_seed_gives_one_part(classes, ratio, seed):
    part, again = (nested_rows(len(classes), ratio, seed, classes) for _ in range(2))
    assert part.tolist() == again.tolist()


def test_other_seeds_give_other_parts():
    parts = {
        tuple(nested_rows(200, Fraction(1, 10), seed, [str(n % 7) for n in range(200)])) for seed in range(20)
    }
    assert len(parts) == 20


@given(num_rows=st.integers(1, 500), ratio=ratios, seed=seeds)
def test_one_class_gives_its_share_rounded(num_rows, ratio, seed):
    expected = max(1, floor(ratio * num_rows + Fraction(1, 2)))
    assert len(nested_rows(num_rows, ratio, seed)) == expected
    assert len(nested_rows(num_rows, ratio, seed, ["only"] * num_rows)) == expected


@pytest.mark.parametrize("ratio", [Fraction(1, 10**9), Fraction(1, 3), Fraction(1)])
def test_one_row_is_in_every_part(ratio):
    assert nested_rows(1, ratio, 7, ["a"]).tolist() == [0]


def test_there_is_always_the_row_that_comes_in_first():
    classes = ["rare", *["big"] * 50, *["middle"] * 5]
    parts = [nested_rows(56, Fraction(1, 10**power), 3, classes) for power in (9, 6, 3)]
    assert [len(part) for part in parts] == [1, 1, 1]
    assert len({int(part[0]) for part in parts}) == 1


@given(num_rows=st.integers(1, 300), ratio=ratios, seed=seeds)
def test_as_many_classes_as_rows_give_the_share_of_all_rows(num_rows, ratio, seed):
    rows = nested_rows(num_rows, ratio, seed, np.arange(num_rows))
    assert abs(len(rows) - ratio * num_rows) <= 1


@given(ratio=ratios, seed=seeds)
def test_forty_rare_classes_beside_a_big_one_neither_all_stay_out_nor_all_come_in(ratio, seed):
    classes = [*(f"rare {number}" for number in range(40)), *["big"] * 1000]
    rows = nested_rows(len(classes), ratio, seed, classes)
    assert abs(len(rows) - ratio * len(classes)) <= 3 or len(rows) == 1


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=60), ratio=ratios, seed=seeds)
def test_the_sum_is_near_its_share_whatever_the_classes(sizes, ratio, seed):
    classes = np.repeat(np.arange(len(sizes)), sizes)
    rows = nested_rows(len(classes), ratio, seed, classes)
    # The starts of the classes are as good as independent of their sizes: a binomial spread at most.
    assert abs(len(rows) - ratio * len(classes)) <= 2 + 5 * (len(sizes) / 4) ** 0.5


@pytest.mark.heavy
def test_one_row_of_a_million_and_a_million_rows_in_ten_stages():
    classes = pyarrow.array(np.arange(1_000_000) % 7).cast(pyarrow.string())
    assert len(nested_rows(1_000_000, Fraction(1, 1_000_000), 5, classes)) == 1
    stages = [nested_rows(1_000_000, ratio, 5, classes) for ratio in schedule(0.1, 0.1, 1)]
    for number, rows in enumerate(stages, start=1):
        counts = np.bincount(rows % 7)
        assert (abs(counts - number / 10 * np.bincount(np.arange(1_000_000) % 7)) < 1).all()
        assert abs(len(rows) - number * 100_000) <= 1
    for less, more in pairwise(stages):
        assert np.isin(less, more, assume_unique=True).all()


def test_classes_may_be_a_list_an_array_or_an_arrow_column():
    names = [" a", "b", "a ", "c", "b"] * 20
    chunks = pyarrow.chunked_array([names[:33], names[33:34], names[34:]])
    forms = [names, tuple(names), np.array(names), pyarrow.array(names), chunks, chunks.dictionary_encode()]
    parts = [nested_rows(100, Fraction(1, 4), 1, form).tolist() for form in forms]
    assert all(part == parts[0] for part in parts)
    assert class_codes(chunks)[:5].tolist() == [0, 1, 0, 2, 1]


def test_several_columns_are_joined_to_one_class_and_selected_rows_count_alone():
    dataset = datasets.Dataset.from_dict(
        {"one": list("aabbab"), "two": list("xyxyxx"), "text": list("......")}
    )
    assert joined_classes(dataset, ["one", "two"]).tolist() == [0, 1, 2, 3, 0, 2]
    assert joined_classes(dataset.select([5, 3, 2]), ["one", "two"]).tolist() == [0, 1, 0]
    assert joined_classes(dataset, ["one"]).tolist() == [0, 0, 1, 1, 0, 1]
    assert joined_classes(dataset, []) is None


@pytest.mark.parametrize(
    ("num_rows", "ratio", "classes"),
    [(0, Fraction(1), None), (3, Fraction(0), None), (3, Fraction(2), None), (3, Fraction(1), ["a"])],
)
def test_what_is_no_part_of_a_table_is_refused(num_rows, ratio, classes):
    with pytest.raises(ValueError, match="rows"):
        nested_rows(num_rows, ratio, 1, classes)
