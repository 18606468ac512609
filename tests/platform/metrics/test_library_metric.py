"""Metrics of the evaluate library from a folder, columns found by name, and several labels in a cell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dure.errors import UserError
from dure.family import load_family
from dure.metrics.library_metric import LibraryMetrics
from dure.metrics.score_columns import find_columns
from dure.metrics.scoring import score_files

SCRIPT = """
import datasets
import evaluate


class {title}(evaluate.Metric):
    def _info(self):
        kind = datasets.Value("{kind}")
        return evaluate.MetricInfo(
            description="-", citation="-", inputs_description="-",
            features=datasets.Features({{"predictions": kind, "references": kind}}),
        )

    def _compute(self, predictions, references):
        same = sum(one == other for one, other in zip(predictions, references))
        return {{"{name}": same / len(references), "count": same, "words": ["left", "out"]}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A metric of texts and one of class numbers, each in the folder of its script."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name, kind in (("same_text", "string"), ("same_class", "int32")):
        (tmp_path / name).mkdir()
        script = SCRIPT.format(title=name.title().replace("_", ""), kind=kind, name=name)
        (tmp_path / name / f"{name}.py").write_text(script, encoding="utf-8")
    return tmp_path


def scored(*files: Path, **options):
    return score_files(*files, cache_folder=Path(os.environ["DURE_CACHE"]), **options)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_metric_of_a_folder_scores_texts_and_classes(folder):
    texts = LibraryMetrics([str(folder / "same_text")], "--metric")
    assert [metric.name for metric in texts.beside(())] == ["eval_same_text"]
    assert texts.scores(["가", "나"], [["가"], ["다"]]) == {"same_text": 0.5, "same_text_count": 1.0}
    classes = LibraryMetrics([str(folder / "same_class")], "--metric")
    assert classes.scores(["b", "a"], [["b"], ["b"]], ["a", "b"])["same_class"] == 0.5


def test_a_name_that_is_not_here_is_refused_in_words_when_there_is_no_network(tmp_path):
    with pytest.raises(UserError, match="not on this machine") as refused:
        LibraryMetrics(["no_such_metric_here"], "--metric")
    assert "spaces/evaluate-metric/no_such_metric_here" in str(refused.value)
    written(tmp_path / "odd.py", "raise ValueError('broken')")
    with pytest.raises(UserError, match="no metric of the evaluate library"):
        LibraryMetrics([str(tmp_path / "odd.py")], "task.metrics")


@pytest.mark.parametrize(
    ("given", "said"), [("'good'", "'good'"), ("0.5", "'0.5'"), ("{}", "'{}'"), ("{'words': 'good'}", "good")]
)
def test_a_metric_without_a_number_is_refused_in_words(folder, given, said):
    broken = SCRIPT.format(title="Broken", kind="string", name="broken").partition("        same =")[0]
    (folder / "broken").mkdir()
    written(folder / "broken" / "broken.py", f"{broken}        return {given}\n")
    with pytest.raises(UserError, match="'broken' gives no number, but") as refused:
        LibraryMetrics([str(folder / "broken")], "--metric").scores(["가"], [["가"]])
    assert said in str(refused.value)


def test_two_metrics_of_one_name_do_not_hide_each_other(tiny, folder):
    with pytest.raises(UserError, match="two metrics are called 'same_text'"):
        LibraryMetrics([str(folder / "same_text"), f"{folder}/same_text/"], "--metric")
    own = written(folder / "accuracy.py", SCRIPT.format(title="Own", kind="int32", name="accuracy"))
    with pytest.raises(UserError, match=r"task\.metrics: two metrics are called 'accuracy'"):
        load_family(tiny("bert", "full", task={"metrics": [str(own)]}))


def test_a_figure_that_is_undefined_is_not_written_as_a_number(tmp_path, folder):
    script = SCRIPT.format(title="Bare", kind="string", name="bare").replace(
        "same / len", "float('nan') * len"
    )
    written(tmp_path / "bare.py", script)
    table = written(tmp_path / "t.csv", "label\n가\n나\n")
    assert scored(table, table, metrics=[str(tmp_path / "bare.py")])["library"] == {
        "bare": None,
        "bare_count": 2.0,
    }


def test_a_family_declares_what_task_metrics_names(tiny, folder):
    experiment = tiny("bert", "full", task={"metrics": [str(folder / "same_class")]})
    family = load_family(experiment)
    assert family.metric("eval_same_class").direction is None
    chosen = experiment.with_({"training.best_metric": "eval_same_class", "training.higher_is_better": True})
    assert load_family(chosen).best_metric.higher_is_better
    texts = {"metrics": [str(folder / "same_text")], "rouge_tokenizer": "character"}
    assert load_family(tiny("llama", task=texts)).metric("eval_same_text") is not None
    with pytest.raises(UserError, match="none are written"):
        load_family(tiny("llama", task=texts | {"validate": "loss"}))


@pytest.mark.parametrize(
    ("predicted", "expected", "found"),
    [
        (["fname", "summary"], ["fname", "dialogue", "summary"], ("fname", "summary", ("summary",))),
        (["id", "label", "probability_a"], ["id", "text", "label"], ("id", "label", ("label",))),
        (
            ["row", "text", "label", "predicted_label"],
            ["row", "label"],
            ("row", "predicted_label", ("label",)),
        ),
        (["번호", "요약"], ["번호", "요약1", "요약2"], ("번호", "요약", ("요약1", "요약2"))),
        (["label"], ["text", "label"], (None, "label", ("label",))),
    ],
)
def test_columns_are_found_by_their_names(predicted, expected, found):
    columns = find_columns(
        predicted, expected, id_column=None, prediction_column=None, reference_columns=None
    )
    assert (columns.id, columns.prediction, columns.references) == found


def test_columns_that_no_name_tells_are_asked_for():
    with pytest.raises(UserError, match="--prediction-column"):
        find_columns(
            ["id", "x", "y"], ["id", "z"], id_column=None, prediction_column=None, reference_columns=None
        )


def test_several_labels_in_a_cell_and_rows_in_one_order(tmp_path, folder):
    predicted = written(tmp_path / "p.csv", "label\n기쁨|놀람\n슬픔\n기쁨\n")
    expected = written(tmp_path / "r.csv", "text,label\n가,기쁨\n나,슬픔\n다,기쁨|놀람\n")
    scores = scored(predicted, expected)
    assert scores["task"] == "classification"
    assert scores["columns"]["id"] is None
    assert scores["label_separator"] == "|"
    assert scores["subset_accuracy"] == pytest.approx(1 / 3)
    assert scores["per_class"]["놀람"]["f1"] == 0.0
    with pytest.raises(UserError, match="these cells hold several"):
        scored(predicted, expected, metrics=[str(folder / "same_text")])
    with pytest.raises(UserError, match="do not pair up"):
        scored(written(tmp_path / "short.csv", "label\n기쁨\n"), expected)


def test_scores_of_the_library_stand_beside_those_of_dure(tmp_path, folder):
    table = written(tmp_path / "a.csv", "id,label\n1,x\n2,y\n")
    other = written(tmp_path / "b.csv", "id,label\n2,x\n1,x\n")
    scores = scored(table, other, metrics=[str(folder / "same_class")])
    assert scores["accuracy"] == scores["library"]["same_class"] == 0.5
