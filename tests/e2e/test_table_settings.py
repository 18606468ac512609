"""Tables on the command line: predict and score read them as training does, and no file is lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from .conftest import call


def rows_of(path: str, delimiter: str = ",") -> list[list[str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


@pytest.fixture
def run(trained):
    return trained[1]


TALK = "#Person1#: 안녕 #Person2#: 네"


def test_predict_takes_what_its_errors_advise_and_keeps_every_row(run):
    Path("in.csv").write_text(f"문서번호,dialogue\nA-1,{TALK}\nA-2,\nA-3,{TALK} 또\nA-1,\u200b\n")
    wrong = call("predict", run, "in.csv", "-o", "out.csv")
    assert wrong.code == 2
    assert "in.csv, row 2 (line 3): column 'dialogue' is empty" in wrong.err
    assert "data.on_bad_row=skip" in wrong.err
    outcome = call("predict", run, "in.csv", "data.on_bad_row=skip", "-o", "out.csv", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.value["rows"], outcome.value["skipped"]) == (2, 2)
    assert "column '문서번호' is taken as the id" in outcome.err
    header, *rows = rows_of("out.csv")
    assert header == ["문서번호", "summary"]
    assert [row[0] for row in rows] == ["A-1", "A-2", "A-3", "A-1"]
    assert [row[1] for row in rows if row[0] in ("A-2",)] == [""]
    assert rows[3][1] == ""


def test_predict_reads_a_table_of_another_layout_and_writes_what_its_name_says(run):
    table = Path("day=1/in.tsv")  # as folders of a table in parts are named: no setting
    table.parent.mkdir()
    table.write_bytes(f'7\t"{TALK}\n8\t{TALK}\n'.encode("cp949"))
    settings = ("data.header=false", "data.columns.id=0", "data.columns.text=1", "data.encoding=cp949")
    assert call("predict", run, table, *settings, "-o", "out.tsv").code == 0
    assert [row[0] for row in rows_of("out.tsv", "\t")] == ["0", "7", "8"]
    assert call("predict", run, table, *settings, "-o", "out.jsonl").code == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line["0"] for line in lines] == ["7", "8"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("in.csv", "-o", "out.xls"), "one of .csv, .tsv, .jsonl, .parquet, .xlsx"),
        (("in.csv", "-o", "in.csv"), "which would be lost"),
        (("in.csv", "-o", "mine.csv"), "--force to replace it"),
        (
            ("in.csv", "training.epochs=3", "-o", "out.csv"),
            "'training.epochs' does not say how a table is read",
        ),
        (("in.csv", "data.train=x.csv", "-o", "out.csv"), "'data.train' does not say how a table is read"),
        (("in.csv", "data.encodng=cp949", "-o", "out.csv"), "data.encoding=…"),
        (("in.csv", "data.quoting=never", "-o", "out.csv"), "data.quoting"),
        (("hf://datasets/a/b", "-o", "out.csv"), "hf download a/b"),
        (("in.csv", "-o", "out.csv", "--address", "127.0.0.1:1"), "--workers N with it"),
    ],
)
def test_what_predict_cannot_do_is_told_before_it_predicts(run, arguments, problem):
    Path("in.csv").write_text(f"dialogue\n{TALK}\n")
    Path("mine.csv").write_text("mine")
    outcome = call("predict", run, *arguments)
    assert outcome.code == 2
    assert problem in outcome.err
    assert Path("mine.csv").read_text() == "mine"


def test_an_output_is_replaced_when_that_is_asked_for(run):
    Path("in.csv").write_text(f"dialogue\n{TALK}\n")
    Path("out.csv").write_text("mine")
    assert call("predict", run, "in.csv", "-o", "out.csv", "--force").code == 0
    assert rows_of("out.csv")[0] == ["summary"]


def test_a_workbook_of_predictions_holds_texts_as_texts(run):
    openpyxl = pytest.importorskip("openpyxl")
    Path("in.csv").write_text(f"fname,dialogue\n=1+1,{TALK}\n")
    assert call("predict", run, "in.csv", "-o", "out.xlsx").code == 0
    rows = list(openpyxl.load_workbook("out.xlsx").active.iter_rows(values_only=True))
    assert rows[0] == ("fname", "summary")
    assert rows[1][0] == "=1+1"


def test_score_takes_the_settings_that_its_errors_advise():
    Path("p.csv").write_bytes("fname,summary\na,가나\nb,다라\n".encode("cp949"))
    Path("r.csv").write_bytes("fname,summary\na,가나\nb,\n".encode("cp949"))
    wrong = call("score", "p.csv", "r.csv", "data.encoding=cp949")
    assert wrong.code == 2
    assert "data.on_bad_row=skip" in wrong.err
    scores = call("score", "p.csv", "r.csv", "data.encoding=cp949", "data.on_bad_row=skip", "--json")
    assert (scores.value["rouge1"], scores.value["num_skipped"]) == (1.0, 1)
    assert "'data.columns.id' does not say" in call("score", "p.csv", "r.csv", "data.columns.id=x").err


def test_a_sample_replaces_nothing_that_says_something_else():
    Path("own").mkdir()
    Path("own/train.csv").write_text("mine")
    refused = call("sample", "-o", "own")
    assert refused.code == 2
    assert "train.csv holds something else, which would be lost" in refused.err
    assert [path.name for path in Path("own").iterdir()] == ["train.csv"]
    assert Path("own/train.csv").read_text() == "mine"
    assert call("sample", "-o", "own", "--force").code == 0
    assert len(rows_of("own/train.csv")) == 2601
    assert call("sample", "-o", "own").code == 0  # the same files once more
