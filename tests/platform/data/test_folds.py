"""Folds: every row held out once, equal texts together, every class alike, and fast."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dure.config.data import FoldConfig
from dure.data.folds import cut_fold, fold_numbers
from dure.data.overlap import text_groups
from dure.data.tables import Role, table_from_rows
from dure.errors import UserError

ROLES = (Role("text", "text", is_input=True), Role("label", "label", is_class=True))
TEXTS = ["가 나", "가  나", "Movie", "mOVIE ", "다", "라\n마", "라 마", "바", "사", "아자", "차", unicodedata.normalize("NFD", "차")]  # fmt: skip
tables = st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from("xyz")), min_size=12, max_size=60)
seeds = st.integers(0, 2**32 - 1)
grouped = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 4)), min_size=2, max_size=120
).map(lambda rows: (np.unique([group for group, _ in rows], return_inverse=True)[1], np.array([code for _, code in rows])))  # fmt: skip


def table_of(rows, folder, roles=ROLES):
    return table_from_rows([{"text": text, "label": label} for text, label in rows], "table", roles, folder)


def same_text(text):
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def classes_of_groups(groups, classes):
    """The most frequent class of every group, the lowest of several, written as one would by hand."""
    counts = {}
    for group, code in zip(groups.tolist(), classes.tolist(), strict=True):
        counts.setdefault(group, Counter())[code] += 1
    return {group: min(count, key=lambda code: (-count[code], code)) for group, count in counts.items()}


@given(rows=grouped, num_folds=st.integers(2, 9), seed=seeds)
def test_groups_are_whole_and_a_class_differs_between_folds_by_its_largest_group_at_most(
    rows, num_folds, seed
):
    groups, classes = rows
    folds = fold_numbers(groups, classes, num_folds, seed)
    assert set(folds.tolist()) <= set(range(1, num_folds + 1))
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in groups)
    strata = classes_of_groups(groups, classes)
    for stratum in set(strata.values()):
        members = [group for group, code in strata.items() if code == stratum]
        sizes = [int((groups == group).sum()) for group in members]
        loads = np.zeros(num_folds + 1, dtype=int)
        for group, size in zip(members, sizes, strict=True):
            loads[folds[groups == group][0]] += size
        assert loads[1:].max() - loads[1:].min() <= max(sizes)


@given(classes=st.lists(st.integers(0, 5), min_size=2, max_size=150), num_folds=st.integers(2, 9), seed=seeds)
def test_without_duplicates_classes_and_folds_are_within_one_row_of_their_share(classes, num_folds, seed):
    codes = np.array(classes)
    folds = fold_numbers(np.arange(len(codes)), codes, num_folds, seed)
    for part in (folds, *(folds[codes == code] for code in set(classes))):
        counts = np.bincount(part, minlength=num_folds + 1)[1:]
        assert counts.max() - counts.min() <= 1


@settings(max_examples=60, deadline=None)
@given(
    rows=tables, num_folds=st.integers(3, 5), seed=seeds, selection=st.sampled_from(["1/10", "0.5", "0.9"])
)
def test_every_row_is_held_out_once_and_no_text_is_in_two_parts(
    tmp_path_factory, rows, num_folds, seed, selection
):
    folder = tmp_path_factory.getbasetemp() / "folds"
    table = table_of(rows, folder)
    assume(len({same_text(text) for text, _ in rows}) >= num_folds)
    held_out = []
    for number in range(1, num_folds + 1):
        fold, _ = cut_fold(
            table, ROLES, FoldConfig(number=number, of=num_folds, seed=seed, selection=selection)
        )
        parts = [fold["train"].tolist(), fold["dev"].tolist(), fold["test"].tolist()]
        assert all(parts)
        assert all(part == sorted(part) for part in parts)
        assert sorted([*parts[0], *parts[1], *parts[2]]) == list(range(len(rows)))
        texts = [{same_text(rows[row][0]) for row in part} for part in parts]
        assert not texts[0] & (texts[1] | texts[2])
        assert not texts[1] & texts[2]
        held_out += parts[2]
    assert sorted(held_out) == list(range(len(rows)))


def test_a_third_of_duplicates_is_in_no_two_parts_and_every_class_has_its_share(tmp_path):
    rng = np.random.default_rng(3)
    texts = [f"문장 {number} 번" for number in range(700)]
    rows = [(text, str(number % 5 % 3)) for number, text in enumerate(texts)]
    rows += [(rows[place][0].replace(" ", "  "), rows[place][1]) for place in rng.integers(0, 700, 300)]
    table = table_of(rows, tmp_path)
    labels = np.array([label for _, label in rows])
    groups = text_groups(table, ["text"])
    for number in range(1, 6):
        fold, _ = cut_fold(table, ROLES, FoldConfig(number=number, of=5))
        for one, other in combinations(fold.values(), 2):
            assert not set(groups[one]) & set(groups[other])
        for label in "012":
            assert abs((labels[fold["test"]] == label).sum() - (labels == label).sum() / 5) <= 1
            rest = (labels == label).sum() - (labels[fold["test"]] == label).sum()
            assert abs((labels[fold["dev"]] == label).sum() - rest / 10) <= 2


def test_the_selecting_part_has_once_and_often_written_texts_alike(tmp_path):
    rows = [(f"혼자 {number}", "x") for number in range(400)]
    rows += [(f"세 번 {number // 3}", "x") for number in range(600)]
    fold, _ = cut_fold(table_of(rows, tmp_path), ROLES, FoldConfig(number=1, of=5, selection=Fraction(1, 4)))
    assert sum(row < 400 for row in fold["dev"]) == 80
    assert len(fold["dev"]) == 200


@pytest.mark.parametrize("changed", [{"number": 2}, {"seed": 7}, {"of": 4}])
def test_folds_are_drawn_by_the_seed_and_only_by_what_the_fold_says(tmp_path, changed):
    table = table_of([(f"문장 {number}", str(number % 2)) for number in range(60)], tmp_path)
    first, again, other = (
        cut_fold(table, ROLES, FoldConfig(**({"number": 1, "of": 5} | change)))[0]["test"].tolist()
        for change in ({}, {"selection": "1/3"}, changed)
    )
    assert first == again != other


def test_contradicting_labels_of_one_text_count_as_the_most_frequent(tmp_path):
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    classes = np.array([0, 1, 1, 1, 0, 0, 1, 0])
    folds = fold_numbers(groups, classes, 2, 42)
    # Groups 0 and 2 are of class 1, groups 1 and 3 of class 0: one of each in every fold.
    assert folds[0] != folds[6]
    assert folds[3] != folds[7]


def test_a_class_with_too_few_texts_is_told_in_one_line(tmp_path):
    rows = [(f"문장 {number}", "흔한") for number in range(20)] + [("드문 글", " 드문"), ("드문  글", "드문")]
    _, messages = cut_fold(table_of(rows, tmp_path), ROLES, FoldConfig(number=1, of=5))
    assert messages == (
        "table: 1 of 2 classes have fewer different texts than there are folds (5), so some folds have none of them "
        "(드문: 1)",
    )


def test_a_table_with_fewer_texts_than_folds_is_refused(tmp_path):
    table = table_of([("하나", "x"), ("하나 ", "y"), ("둘", "x"), ("셋", "y")], tmp_path)
    assert len(cut_fold(table, ROLES, FoldConfig(number=1, of=3))[0]["dev"]) == 1
    assert len(cut_fold(table, ROLES, FoldConfig(number=1, of=2))[0]["test"]) == 2
    with pytest.raises(UserError, match="of one text, which cannot both train and select"):
        cut_fold(table, ROLES, FoldConfig(number=2, of=2))
    with pytest.raises(UserError, match=r"data\.fold\.of=4 \(table\): 3 different texts"):
        cut_fold(table, ROLES, FoldConfig(number=1, of=4))


def test_a_table_without_classes_is_cut_by_its_rows_alone(tmp_path):
    roles = (Role("text", "text", is_input=True), Role("label", "label"))
    fold, messages = cut_fold(
        table_of([(f"글 {n}", "요약") for n in range(50)], tmp_path), roles, FoldConfig(number=5, of=5)
    )
    assert (len(fold["train"]), len(fold["dev"]), len(fold["test"]), messages) == (36, 4, 10, ())


def test_a_corpus_of_176_000_rows_is_cut_in_a_few_seconds():
    rng = np.random.default_rng(0)
    texts = 123_200
    groups = np.concatenate([np.arange(texts), rng.integers(0, texts, 176_000 - texts)])
    classes = rng.choice(5, texts, p=[0.149, 0.17, 0.15, 0.199, 0.332])[groups]
    start = time.perf_counter()
    folds = fold_numbers(groups, classes, 5, 42)
    assert time.perf_counter() - start < 5
    for code in range(5):
        counts = np.bincount(folds[classes == code])[1:]
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"number": 6, "of": 5}, "there is no fold 6 of 5"),
        ({"number": 1, "of": 1}, "greater than or equal to 2"),
        ({"number": 0, "of": 5}, "greater than or equal to 1"),
        ({"number": 1, "of": 5, "selection": 1}, "below 1"),
    ],
)
def test_a_fold_that_cannot_be_is_refused(values, problem):
    with pytest.raises(ValueError, match=problem):
        FoldConfig(**values)
