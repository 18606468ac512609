from __future__ import annotations

import csv

import pytest
from matplotlib.image import imread

from dure.reporting.plots import Drawing, figures_beside
from dure.studies.crossval.confusion import plot_confusion, write_confusion
from dure.studies.crossval.results import ConfusionRecord

CONFUSION = ConfusionRecord(classes=["기쁨", "슬픔", "분노"], counts=[[50, 3, 0], [10, 40, 1], [0, 0, 0]])


@pytest.mark.heavy
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [2, 5, 17, 44])
def test_any_number_of_classes_has_a_picture(num_classes, tmp_path):
    counts = [[90 if row == column else row for column in range(num_classes)] for row in range(num_classes)]
    names = [f"감정 {place} 의 아주 긴 이름" for place in range(num_classes)]
    plot_confusion(tmp_path / "picture.png", ConfusionRecord(classes=names, counts=counts), title="emotions")
    height, width = imread(tmp_path / "picture.png").shape[:2]
    assert 400 < height < 2600
    assert 400 < width < 2900


@pytest.mark.parametrize(("num_classes", "slanted"), [(3, 0), (44, 44)])
def test_names_beneath_stand_level_only_where_their_columns_have_room(num_classes, slanted, tmp_path):
    names = [f"mood {place}" for place in range(num_classes)]
    with figures_beside("svg"):
        plot_confusion(
            tmp_path / "picture.png",
            ConfusionRecord(classes=names, counts=[[1] * num_classes] * num_classes),
            title="",
        )
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").count("rotate(-45") == slanted


@pytest.mark.filterwarnings("error")
def test_the_diagonal_is_dark_and_a_class_without_rows_is_pale(tmp_path):
    plot_confusion(tmp_path / "picture.png", CONFUSION, title="emotions")
    picture = imread(tmp_path / "picture.png")[:, :, :3]
    dark = ((picture[:, :, 2] > picture[:, :, 0] + 0.3) & (picture[:, :, 0] < 0.3)).mean()
    assert 0.08 < dark < 0.4, "two of nine cells, and a part of the bar"


def test_the_table_has_a_row_for_every_true_class(tmp_path):
    write_confusion(tmp_path / "confusion.csv", CONFUSION)
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["true \\ predicted", "기쁨", "슬픔", "분노"],
            ["기쁨", "50", "3", "0"],
            ["슬픔", "10", "40", "1"],
            ["분노", "0", "0", "0"],
        ]


def test_a_name_with_dollars_is_no_formula(tmp_path):
    confusion = ConfusionRecord(classes=["$5~$10", "$5 {$"], counts=[[3, 1], [1, 3]])
    plot_confusion(tmp_path / "picture.png", confusion, title="prices")
    drawing = Drawing()
    plot_confusion(drawing, confusion, title="prices")
    assert drawing.svg.count(">$5~$10<") == drawing.svg.count(">$5 {$<") == 2
