"""The folds of a cross-validation put together from their folders."""

from __future__ import annotations

import csv
import statistics
import unicodedata

import numpy as np
import pytest

from dure.config.data import FoldConfig
from dure.config.loading import dump_yaml
from dure.errors import UserError
from dure.files import write_text
from dure.metrics.classification import classification_report
from dure.metrics.paired_classes import mcnemar
from dure.runs.folder import RunFolder, RunResult
from dure.studies.crossval.comparison import compare
from dure.studies.crossval.results import Predictions, comparisons, read_predictions

from .put_together import together

CLASSES = ["기쁨", "슬픔", "분노"]
NUM_FOLDS, NUM_ROWS = 5, 60


@pytest.fixture
def folds(tiny, tmp_path):
    """Write the folders of a finished experiment whose predictions are right in ``accuracy`` of the rows."""

    def make(name, accuracy=0.7, seed=0, kept=True, numbers=range(1, NUM_FOLDS + 1)):
        rng = np.random.default_rng(seed)
        paths = []
        for number in numbers:
            folder = RunFolder(tmp_path / name / f"fold_{number}")
            experiment = tiny("bert", "full")
            data = experiment.data.model_copy(update={"fold": FoldConfig(number=number, of=NUM_FOLDS)})
            write_text(folder.experiment, dump_yaml(experiment.model_copy(update={"data": data})))
            rows = list(range(number - 1, NUM_ROWS, NUM_FOLDS))
            # The last class stands in the rows of two folds only.
            labels = ["분노" if row in (3, 4) else CLASSES[row % 7 % 2] for row in rows]
            made = [label if rng.random() < accuracy else str(rng.choice(CLASSES)) for label in labels]
            report = classification_report(labels, made)
            none = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
            metrics = {f"test_{key}": report[key] for key in ("accuracy", "macro_f1", "weighted_f1")}
            for label in CLASSES:
                for figure, value in report["per_class"].get(label, none).items():
                    metrics[f"test_{figure}[{label}]"] = float(value)
            folder.write_result(
                RunResult(name, "completed", {**metrics, "eval_accuracy": 1.0, "note": "x"}, seconds=2.0)
            )
            if kept:
                with folder.predictions.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file)
                    writer.writerow(
                        [
                            "row",
                            "text",
                            "label",
                            "predicted_label",
                            *(f"probability_{name}" for name in CLASSES),
                        ]
                    )
                    for row, label, prediction in zip(rows, labels, made, strict=True):
                        shares = [0.8 if one == prediction else 0.1 for one in CLASSES]
                        writer.writerow([row, f"글, {row}\n번", f"{label} ", prediction, *shares])
            paths.append(folder.path)
        return paths

    return make


def test_every_metric_has_its_mean_and_deviation_over_the_folds(folds, tmp_path):
    paths = folds("a")
    result = together("a", paths, tmp_path / "oof.csv")
    records = [RunFolder(path).read_result() for path in paths]
    assert [fold.fold for fold in result.folds] == [1, 2, 3, 4, 5]
    values = [record.metrics["test_macro_f1"] for record in records]
    assert result.mean["macro_f1"] == pytest.approx(statistics.mean(values))
    assert result.std["macro_f1"] == pytest.approx(statistics.stdev(values))
    assert set(result.folds[0].metrics) == {
        "accuracy", "macro_f1", "weighted_f1",
        *(f"{figure}[{name}]" for figure in ("precision", "recall", "f1", "support") for name in CLASSES),
    }  # fmt: skip


def test_a_class_counts_only_in_folds_that_have_rows_of_it(folds, tmp_path):
    paths = folds("a", accuracy=1.0)
    result = together("a", paths, tmp_path / "oof.csv")
    assert result.mean["recall[분노]"] == 1
    assert result.std["recall[분노]"] == 0


def test_the_rows_of_all_folds_are_scored_together_and_written_in_the_order_of_the_table(folds, tmp_path):
    result = together("a", folds("a"), tmp_path / "oof_predictions.csv")
    with (tmp_path / "oof_predictions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [
        "text",
        "label",
        "prediction",
        "fold",
        *(f"probability_{name}" for name in CLASSES),
    ]
    assert [line["text"] for line in lines] == [f"글, {row}\n번" for row in range(NUM_ROWS)]
    assert [line["fold"] for line in lines] == [str(row % NUM_FOLDS + 1) for row in range(NUM_ROWS)]
    labels, made = [line["label"].strip() for line in lines], [line["prediction"] for line in lines]
    report = classification_report(labels, made)
    assert result.overall == {key: report[key] for key in ("accuracy", "macro_f1", "weighted_f1", "num_rows")}
    counts = result.confusion.counts
    assert list(result.confusion.classes) == CLASSES
    for row, label in enumerate(CLASSES):
        for column, prediction in enumerate(CLASSES):
            pairs = zip(labels, made, strict=True)
            assert counts[row][column] == sum(pair == (label, prediction) for pair in pairs)


def test_folds_that_failed_or_have_not_ended_keep_their_place_without_figures(folds, tmp_path):
    paths = folds("a")
    RunFolder(paths[1]).write_result(RunResult("a", "failed", error="out of memory"))
    RunFolder(paths[2]).result.unlink()
    result = together("a", paths, tmp_path / "oof.csv")
    assert [fold.state for fold in result.folds] == [
        "completed",
        "failed",
        "interrupted",
        "completed",
        "completed",
    ]
    assert result.folds[1].error == "out of memory"
    assert result.overall["num_rows"] == 36
    assert "macro_f1" in result.std
    alone = together("a", paths[:1], tmp_path / "oof.csv")
    assert "macro_f1" in alone.mean
    assert alone.std == {}


def test_runs_that_kept_no_predictions_or_rows_of_several_labels_have_figures_all_the_same(folds, tmp_path):
    assert together("a", folds("a", kept=False), tmp_path / "oof.csv").overall is None
    paths = folds("b")
    for path in paths:
        text = RunFolder(path).predictions.read_text(encoding="utf-8")
        RunFolder(path).predictions.write_text(text.replace("기쁨 ,", "기쁨|슬픔,"), encoding="utf-8")
    result = together("b", paths, tmp_path / "oof.csv")
    assert result.confusion is None
    assert result.mean["macro_f1"] > 0


def test_a_row_that_two_folds_held_out_is_refused(folds, tmp_path):
    paths = folds("a")
    lines = (
        RunFolder(paths[1])
        .predictions.read_text(encoding="utf-8")
        .replace("\n1,", "\n0,")
        .replace("\r\n1,", "\r\n0,")
    )
    RunFolder(paths[1]).predictions.write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match="row 0 is held out by two folds"):
        together("a", paths, tmp_path / "oof.csv")


def test_predictions_that_are_damaged_are_told_with_their_file(folds, tmp_path):
    paths = folds("a")
    file = RunFolder(paths[1]).predictions
    file.write_text(file.read_text(encoding="utf-8") + "7,글\n", encoding="utf-8")
    with pytest.raises(UserError, match="no predictions of a run: row 13 has 2 cells") as refused:
        together("a", paths, tmp_path / "oof.csv")
    assert refused.value.where == str(file)


def test_experiments_are_compared_in_pairs_on_the_folds_that_both_have(folds, tmp_path):
    given = {"a": folds("a", 0.95, 1), "b": folds("b", 0.5, 2), "c": folds("c", 0.5, 3, numbers=(1, 2, 4))}
    results = [together(name, paths, tmp_path / "oof.csv") for name, paths in given.items()]
    predictions = {
        name: read_predictions({int(path.name[-1]): path for path in paths}) for name, paths in given.items()
    }
    pairs = comparisons(results, metric="accuracy", num_folds=NUM_FOLDS, predictions=predictions)
    assert [(pair.a, pair.b, pair.folds) for pair in pairs] == [
        ("a", "b", 5),
        ("a", "c", 3),
        ("b", "c", 3),
    ]
    scores = {
        result.name: {fold.fold: fold.metrics["accuracy"] for fold in result.folds} for result in results
    }
    first = compare(list(scores["a"].values()), list(scores["b"].values()))
    assert pairs[0].difference.p_value == first.p_value
    third = compare([scores["b"][fold] for fold in (1, 2, 4)], list(scores["c"].values()), num_folds=5)
    assert (pairs[2].difference.low, pairs[2].difference.high) == (third.low, third.high)
    assert all(pair.p_holm >= pair.difference.p_value for pair in pairs)
    assert pairs[0].rows.num_rows == 60
    assert pairs[1].rows.num_rows == 36
    labels, made = predictions["a"].classes
    assert pairs[0].rows.mcnemar == mcnemar(labels, made, predictions["b"].classes[1])
    assert pairs[0].rows.bootstrap["accuracy"].low > 0
    assert pairs[0].rows.mcnemar_holm < 0.05


def test_one_common_fold_is_no_comparison(folds, tmp_path):
    given = {"a": folds("a"), "b": folds("b", numbers=(2,))}
    results = [together(name, paths, tmp_path / "oof.csv") for name, paths in given.items()]
    assert comparisons(results, metric="accuracy", num_folds=5, predictions={})[0].difference is None


def test_rows_of_a_class_in_another_spelling_are_of_that_class():
    apart = unicodedata.normalize("NFD", "기쁨")
    made = Predictions(
        rows=[0, 1, 2],
        folds=[1, 1, 2],
        columns={"label": ["기쁨", f"{apart} ", "슬픔\u200b"]},
        predicted={"label": ["기쁨", "기쁨", "슬픔"]},
        probabilities={"기쁨": ["1", "1", "0"], "슬픔": ["0", "0", "1"]},
    )
    assert made.classes == (["기쁨", "기쁨", "슬픔"], ["기쁨", "기쁨", "슬픔"])
