"""The short ways of the command line: texts, a table, a family, keys and seeds, each said in few words."""

from __future__ import annotations

import csv
import io
import json

import pandas as pd
import pytest

import dure
from dure.cli import options
from dure.runs.folder import RunFolder

from .conftest import call, program


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_texts_are_predicted_from_the_command_and_from_standard_input(trained, monkeypatch):
    _, run = trained
    found = call("predict", run, "--text", "안녕하세요", "--text", "내일 봐요", "--json")
    assert found.code == 0, found.err
    predictions = found.value["predictions"]
    assert [row["text"] for row in predictions] == ["안녕하세요", "내일 봐요"]
    assert all("summary" in row for row in predictions)
    assert "0/0" not in found.err
    assert "Loading weights" not in found.err
    monkeypatch.setattr("sys.stdin", io.StringIO("안녕하세요\n내일 봐요\n"))
    lines = call("predict", run, "-").out.split("\n")
    assert lines == [*(" ".join(row["summary"].split()) for row in predictions), ""]
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff안녕\u2028하세요\n내일\f봐요\x85\n모레\n"))
    assert call("predict", run, "-").out.count("\n") == 3  # a line for each of theirs, as wc -l counts them


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "0 inputs are given"),
        (("in.csv", "--text", "a"), "both a table and texts"),
        (("--text", "a", "-o", "x.csv"), "--output x.csv"),
        (("in.csv",), "no file is named"),
        (("--text", "a", "--workers", "2"), "--workers 2: this option is for tables"),
        (("--text", "a", "--text", "\u200b"), "--text (number 2 of 2): the text is empty"),
        (("--text", "a\udcff"), "--text: there are bytes that are not UTF-8"),
        (("",), "an empty word is given"),
        (("in.csv", "-o", ""), "--output: an empty word is given"),
        (("in.csv", "-o", "o.csv", "data.colums.dialogue=text"), "try: data.columns.dialogue=…"),
        (("in.csv", "-o", "-"), "its name has no suffix"),
    ],
)
def test_what_predict_needs_is_said(trained, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id,dialogue\n1,안녕하세요\n", encoding="utf-8")
    outcome = call("predict", trained[1], *words, "--profile", "cpu")
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.parametrize(
    ("given", "said"),
    [("", "standard input: it is empty"), ("a\n \nb", "line 2: the text is empty"), ("a\n\udcff\n", "line 2: there are bytes")],
)  # fmt: skip
def test_what_standard_input_lacks_is_said(trained, monkeypatch, given, said):
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    outcome = call("predict", trained[1], "-", "--profile", "cpu")
    assert outcome.code == 2
    assert said in outcome.err


def test_texts_of_python_are_predicted_from_any_iterable_and_nothing_else_is_taken_for_them(trained):
    _, run = trained
    frame = pd.DataFrame({"text": ["안녕하세요", "내일 봐요"]})
    expected = dure.predict(run, [*frame["text"]], profile="cpu")
    assert dure.predict(run, frame["text"], profile="cpu") == expected
    assert dure.predict(run, (text for text in frame["text"]), profile="cpu") == expected
    assert dure.predict(run, frame.to_dict("records"), profile="cpu") == expected
    for given, said in {
        "frame": (frame, r'DataFrame is no list of texts(?s:.*)to_dict\("records"\)'),
        "mapping": ({"text": "a"}, "dict is no list of texts"),
        "numbers": ([1], "text 1: 1 is no text"),
        "missing": (["a", None], "text 2: None is no text"),
        "torn": (["a\ud83d"], "text 1"),
        "none": ([], "there is no text"),
    }.values():
        with pytest.raises(dure.UserError, match=said):
            dure.predict(run, given, profile="cpu")


def test_evaluation_from_python_prints_nothing(trained, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("dialogue,summary\n안녕하세요,인사\n", encoding="utf-8")
    assert dure.evaluate(trained[1], tmp_path / "in.csv", profile="cpu")["rows"] == 1
    assert capsys.readouterr().out == ""


def test_a_folder_within_a_run_names_the_run(trained):
    for inside in ("final_model", "checkpoint-2"):
        outcome = call("predict", trained[1] / inside, "--text", "a", "--profile", "cpu")
        assert outcome.code == 2
        assert f"try: the folder around it: {trained[1]}" in outcome.err


def test_a_table_is_scored_as_validation_scored_it(trained, corpus):
    outcome, run = trained
    found = call("evaluate", run, corpus / "dev.csv", "--json")
    assert found.code == 0, found.err
    value = found.value
    assert value["rows"] == len(read_rows(corpus / "dev.csv"))
    assert value["notes"]["rouge_tokenizer"] == outcome.value["metrics"]["rouge_tokenizer"]
    assert 0 <= value["metrics"]["eval_rouge1"] <= 1
    assert len(value["data"]) == 64
    before = RunFolder(run).read_result()
    assert before.state == "completed"
    wrong = call("evaluate", run, corpus / "test.csv")
    assert wrong.code == 2
    assert "summary" in wrong.err


def test_schema_of_a_family_names_its_options_columns_and_metrics():
    found = call("schema", "--family", "trainables.emotion").value
    assert "multi_label" in found["task"]["properties"]
    assert found["columns"]["label"] == {"column": "label", "needed": "for training", "kind": "class"}
    assert found["metrics"]["eval_macro_f1"]["direction"] == "max"
    assert call("schema", "--family", "trainables.nothing").code == 2


def test_dotted_keys_are_completed_section_by_section():
    assert options.settings("training.lea") == ["training.learning_rate="]
    assert "training." in options.settings("tr")
    assert options.settings("training.epochs=") == []


def test_epochs_are_an_option_and_several_experiments_are_a_batch():
    one = call("train", "transfer_bert", "--epochs", 7, "--dry-run", "--json").value
    assert one["training"]["epochs"] == 7
    wrong = call("train", "transfer_bert", "--epochs", 0, "--dry-run")
    assert wrong.code == 2
    assert "--epochs" in wrong.err
    batch = call("batch", "transfer_bert", "transfer_distilbert", "--seeds", 3, "--dry-run", "--json").value
    names = [each["experiment"]["name"] for each in batch["experiments"]]
    assert names == [
        f"{name}-seed{seed}" for name in ("transfer_bert", "transfer_distilbert") for seed in (42, 43, 44)
    ]
    assert batch["study"]["seeds"] == 3


def test_a_run_says_what_comes_next(trained):
    outcome, _ = trained
    assert 'next: dure predict run --text "…"' in outcome.err
    assert json.loads(outcome.out)["state"] == "completed"


@pytest.mark.slow
def test_the_same_from_a_shell(trained, tmp_path):
    outcome = program("predict", trained[1], "--text", "안녕하세요", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert "summary" in outcome.out
