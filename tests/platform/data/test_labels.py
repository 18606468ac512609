"""Labels: one class however it is spelled, and never two in one."""

from __future__ import annotations

import unicodedata

import pytest

from dure.data.labels import ClassIndex, check_classes, class_names, classes_of, label_counts, labels_in
from dure.data.ratios import class_codes
from dure.data.tables import Role, table_from_rows
from dure.errors import UserError

NFD = unicodedata.normalize("NFD", "기쁨")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["0", "1", "0.0", "1.0"], ("0", "1")),
        (["0", "1", "2   ", "2", "10.00"], ("0", "1", "2", "10.00")),
        (["true", "0", "False", "1.0"], ("0", "1.0")),
        (["True", "true", "FALSE"], ("FALSE", "True")),
        (["-1", "0", "1", "-1.0"], ("-1", "0", "1")),
        (["0", "1", "１", "０"], ("0", "1")),
        (["Ａ형", "A형", "B형 "], ("A형", "B형")),
        (["+1", "1", "-1"], ("-1", "1")),
        (["0.5", "1", "1.0", "+0.5"], ("0.5", "1")),
        (["0", "-0", "1", "-0.0"], ("0", "1")),
        (["0", "0.", "1.", "1"], ("0", "1")),
        (["0.5", ".5", "-.5", "-0.50"], ("-.5", "-0.50", ".5")),
        (["1.", "1", ".", "0"], ("0", "1", "1.", ".")),
        (["9" * 5000, "+" + "9" * 5000, "2"], ("2", "9" * 5000)),
        (["기쁨", NFD, "\ufeff기쁨", "슬픔"], ("기쁨", "슬픔")),
        # What is not of one kind as a whole is compared as it is spelled.
        (["1", "1.0", "version 1"], ("1", "1.0", "version 1")),
        (["true", "1", "2"], ("1", "2", "true")),
        (["true", "1", "unknown"], ("1", "true", "unknown")),
        (["07", "7"], ("07", "7")),
        (["1.1", "1.10"], ("1.1", "1.10")),
        (["1e3", "1000"], ("1000", "1e3")),
        (["Good", "good"], ("Good", "good")),
    ],
)
def test_the_labels_of_a_column_name_these_classes(labels, names) -> None:
    found = class_names(label for cell in labels for label in labels_in(cell))
    assert found == names
    # Every other way from labels to classes agrees: the ids of rows, the strata of folds, the counts.
    ids = [ClassIndex(found)[label] for label in labels]
    assert {*ids} == {*range(len(names))}
    codes = class_codes(labels).tolist()
    assert [[a == b for b in ids] for a in ids] == [[a == b for b in codes] for a in codes]
    assert label_counts(labels) == {name: ids.count(place) for place, name in enumerate(found)}


@pytest.mark.parametrize(
    ("classes", "label", "place"),
    [
        (("0", "1"), "1.0", 1),
        (("0", "1"), "TRUE", 1),
        (("false", "true"), "0", 0),
        (("기쁨", "슬픔"), NFD, 0),
        (("0", "1", "2"), "true", None),
        (("a", "1"), "1.0", None),
    ],
)
def test_a_label_of_another_table_means_a_class_of_training(classes, label, place) -> None:
    assert ClassIndex(classes).find(label) == place


ROLES = (Role("text", "text", is_input=True), Role("label", "label", is_class=True))


def table(tmp_path, *labels, name="train.csv"):
    rows = [{"text": f"글 {row}", "label": label} for row, label in enumerate(labels)]
    return table_from_rows(rows, name, ROLES, tmp_path)


def test_nfd_labels_of_a_validation_table_are_no_strangers(tmp_path) -> None:
    classes = classes_of(table(tmp_path, "기쁨", "슬픔"), "label")
    check_classes(table(tmp_path, NFD, "슬픔 ", name="dev.csv"), "label", classes)
    with pytest.raises(UserError, match="no class '중립'") as caught:
        check_classes(table(tmp_path, NFD, "중립", name="dev.csv"), "label", classes)
    assert caught.value.where == "dev.csv, role 'label', row 2"


def test_a_table_of_which_no_class_is_known_is_not_told_to_drop_its_rows(tmp_path) -> None:
    foreign = table(tmp_path, "긍정", "부정")
    with pytest.raises(UserError, match="no class '긍정' \\(and 1 more\\)") as caught:
        check_classes(foreign, "label", ("0", "1"))
    assert "spell them as training did" in caught.value.hint
    with pytest.raises(UserError, match="no class '부정'") as caught:
        check_classes(foreign, "label", ("긍정", "1"))
    assert "correct or remove such rows" in caught.value.hint


def test_the_labels_of_rows_with_several_are_counted_one_by_one() -> None:
    cells = ["0 6 10", "6", "", "10 6"]
    assert label_counts(cells, " ") == {"0": 1, "6": 3, "10": 2, "": 1}
