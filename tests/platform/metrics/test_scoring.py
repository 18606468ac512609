"""Promises of classification figures and of scoring files."""

import csv
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, log_loss, precision_recall_fscore_support
from sklearn.metrics import classification_report as independent

from dure.config.data import ReadingConfig
from dure.errors import UserError
from dure.metrics.classification import classification_report, trivial_classification
from dure.metrics.rouge import rouge
from dure.metrics.scoring import score_files
from dure.reporting.summary import score_table


def score(*files, **options):
    return score_files(*files, cache_folder=Path(os.environ["DURE_CACHE"]), **options)


@pytest.fixture
def table(tmp_path):
    def write(name, header, *rows):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


def test_labels_that_are_numbers_with_fractions_are_scored_as_numbers_and_not_as_classes(table):
    """Predicted similarities used to be classes of which none was true: accuracy 0, exit 0."""
    true, said = [3.4, 0.5, 2.0, 4.8], [3.1, 0.61, 2.5, 4.1]
    references = table("true.csv", ["id", "label"], *enumerate(true))
    predictions = table("said.csv", ["id", "label"], *reversed([*enumerate(said)]))
    found = score(predictions, references)
    assert found["task"] == "number"
    assert found["pearson"] == pytest.approx(pearsonr(true, said).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(true, said).statistic)
    assert found["mse"] == pytest.approx(np.square(np.subtract(true, said)).mean())
    assert "4 rows" in str(score_table(found).title)
    assert score(predictions, references, task="classification")["accuracy"] == 0
    ratings = table("ratings.csv", ["id", "label"], *enumerate([3, 1, 2, 5]))
    assert score(predictions, ratings)["task"] == "classification"
    assert score(predictions, ratings, task="number")["mse"] == pytest.approx(
        np.square([0.1, 0.39, 0.5, 0.9]).mean()
    )


def test_predicted_classes_are_not_scored_against_the_text_that_they_are_of(table):
    """A table without labels used to score 0 %, with a class for every text."""
    predictions = table("said.csv", ["label", "probability_0"], [0, 0.6], [1, 0.3])
    with pytest.raises(UserError, match="not clear which column of the references is to be scored"):
        score(predictions, table("texts.csv", ["text"], ["좋다"], ["별로"]))
    named = table("named.csv", ["gold"], [0], [0])
    assert score(predictions, named, reference_columns=["gold"])["accuracy"] == 0.5


def test_a_number_that_is_none_is_named_with_its_row_or_left_out(table):
    references = table("true.csv", ["id", "label"], *enumerate([3.4, 0.5, 2.5]))
    predictions = table("said.csv", ["id", "label"], [0, 3.1], [1, ""], [2, "2.5"])
    with pytest.raises(UserError, match=r"said.csv, row 2") as caught:
        score(predictions, references)
    assert "data.on_bad_row=skip" in caught.value.hint
    found = score(predictions, references, reading=ReadingConfig(on_bad_row="skip"))
    assert (found["num_rows"], found["num_skipped"], found["mse"]) == (2, 1, pytest.approx(0.09 / 2))


def test_classification_figures_are_those_of_scikit_learn():
    labels = ["joy", "sad", "joy", "anger", "neutral", "sad"]
    predictions = ["joy", "joy", "joy", "sad", "anxiety", "sad"]
    ours = classification_report(labels, predictions)
    theirs = independent(labels, predictions, output_dict=True, zero_division=0)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"])
    assert ours["macro_f1"] == pytest.approx(theirs["macro avg"]["f1-score"])
    assert ours["weighted_f1"] == pytest.approx(theirs["weighted avg"]["f1-score"])
    assert ours["num_rows"] == 6
    for name, figures in ours["per_class"].items():
        assert figures["precision"] == pytest.approx(theirs[name]["precision"])
        assert figures["recall"] == pytest.approx(theirs[name]["recall"])
        assert figures["f1"] == pytest.approx(theirs[name]["f1-score"])
        assert figures["support"] == theirs[name]["support"]
    assert list(ours["per_class"]) == ["anger", "anxiety", "joy", "neutral", "sad"]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_classification_figures_are_to_the_last_bit_those_of_scikit_learn(rows):
    labels, predictions = zip(*rows, strict=True)
    classes = sorted({*labels, *predictions})
    found = classification_report(labels, predictions)
    theirs = precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0)
    for name, figures in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [each[name] for each in found["per_class"].values()] == figures.tolist()
    assert found["accuracy"] == accuracy_score(labels, predictions)
    assert found["macro_f1"] == theirs[2].mean()


def test_classes_may_be_numbers():
    assert list(classification_report([0, 1, 1], [0, 1, 0])["per_class"]) == ["0", "1"]


@pytest.mark.parametrize(("labels", "predictions"), [([], []), (["a"], ["a", "b"])])
def test_classes_that_do_not_pair_up_are_refused(labels, predictions):
    with pytest.raises(UserError):
        classification_report(labels, predictions)


def test_files_are_joined_by_id_whatever_their_order(table):
    predictions = table("p.csv", ["fname", "summary"], ["b", "나는 갔다"], ["a", "밥을\n먹었다"])
    references = table(
        "r.csv", ["fname", "topic", "summary"], ["a", "x", "밥을\n먹는다"], ["b", "y", "너는 갔다"]
    )
    result = score(predictions, references)
    expected = rouge(["나는 갔다", "밥을\n먹었다"], ["너는 갔다", "밥을\n먹는다"]).as_dict()
    columns = {"id": "fname", "prediction": "summary", "references": ["summary"]}
    assert result == {"task": "generation", "columns": columns, **expected}


def test_several_reference_columns_may_be_empty_in_places(table):
    predictions = table("p.csv", ["fname", "summary"], ["a", "가 나"], ["b", ""])
    references = table("r.csv", ["fname", "s1", "s2"], ["a", "가", "가 나"], ["b", "다", ""])
    result = score(
        predictions,
        references,
        reference_columns=("s1", "s2"),
        tokenizer="whitespace",
        multi_reference="mean",
    )
    assert result["rouge1"] == pytest.approx((2 / 3 + 1) / 2 / 2)
    assert result["num_empty_predictions"] == 1


def test_special_tokens_reach_the_tokenizer(table):
    predictions = table("p.csv", ["fname", "summary"], ["a", "<중요>"])
    references = table("r.csv", ["fname", "summary"], ["a", "<주요>"])
    arguments = {"tokenizer": "character", "special_tokens": ["<중요>", "<주요>"]}
    assert score(predictions, references, **arguments)["rouge1"] == 0


def test_classes_are_scored_from_files(table):
    predictions = table("p.csv", ["id", "guess"], ["1", "joy"], ["2", "sad"])
    references = table("r.csv", ["id", "label"], ["2", "joy"], ["1", "joy"])
    result = score(
        predictions,
        references,
        id_column="id",
        prediction_column="guess",
        reference_columns=["label"],
        task="classification",
    )
    assert result["task"] == "classification"
    assert result["accuracy"] == 0.5


def test_a_missing_column_is_named_with_the_nearest_one(table):
    path = table("p.csv", ["fname", "sumary"], ["a", "가"])
    with pytest.raises(UserError) as caught:
        score(path, path, prediction_column="summary")
    assert "no column 'summary'" in str(caught.value)
    assert "p.csv" in str(caught.value)
    assert "--prediction-column=sumary" in str(caught.value)


def test_a_duplicate_id_is_named_with_its_row(table):
    path = table("p.csv", ["fname", "summary"], ["a", "가"], ["b", "나"], ["a", "다"])
    with pytest.raises(
        UserError, match=r"p\.csv, row 3 \(line 4\): column 'fname' repeats the id 'a' of row 1"
    ):
        score(path, path)


def test_a_row_of_the_wrong_width_is_named(table):
    path = table("p.csv", ["fname", "summary"], ["a", "가"], ["b"])
    with pytest.raises(UserError, match=r"p\.csv, row 2 \(line 3\).*1 cells"):
        score(path, path)


@pytest.mark.parametrize("swapped", [False, True])
def test_ids_in_one_file_only_are_counted_and_named(table, swapped):
    few = table("few.csv", ["fname", "summary"], ["a", "가"])
    many = table("many.csv", ["fname", "summary"], *([name, "가"] for name in "abcdefgh"))
    with pytest.raises(UserError, match=r"7 of 8 ids are not in .*few\.csv: b, c, d, e, f, …"):
        score(*((many, few) if swapped else (few, many)))


def test_a_row_without_reference_is_refused(table):
    predictions = table("p.csv", ["fname", "summary"], ["a", "가"])
    references = table("r.csv", ["fname", "summary"], ["a", " "])
    with pytest.raises(UserError, match=r"r\.csv, row 1 .* is empty\n  try: correct the row, or"):
        score(predictions, references)


@pytest.mark.parametrize("rows", [[], [["fname", "summary"]]])
def test_an_empty_file_is_refused(table, tmp_path, rows):
    path = tmp_path / "p.csv"
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=r"p\.csv"):
        score(path, path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        score(tmp_path / "p.csv", tmp_path / "r.csv")


def test_an_unknown_task_is_refused(table):
    path = table("p.csv", ["fname", "summary"], ["a", "가"])
    with pytest.raises(UserError, match="translation"):
        score(path, path, task="translation")


def test_predictions_that_are_all_empty_score_nothing(table):
    predictions = table("p.csv", ["fname", "summary"], ["a", ""], ["b", ""])
    references = table("r.csv", ["fname", "summary"], ["a", "가"], ["b", "나"])
    scores = score(predictions, references)
    assert (scores["rouge_sum"], scores["num_empty_predictions"]) == (0, 2)


@given(
    train=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    dev=st.lists(st.integers(0, 4), min_size=1, max_size=40),
)
def test_the_trivial_classifier_is_that_of_scikit_learn(train: list[int], dev: list[int]) -> None:
    ours = trivial_classification(np.array(train), np.array(dev), 5)
    rows, held_out = np.zeros((len(train), 1)), np.zeros((len(dev), 1))
    predicted = DummyClassifier(strategy="most_frequent").fit(rows, train).predict(held_out)
    theirs = independent(dev, predicted, output_dict=True, zero_division=0)
    assert ours["eval_accuracy"] == pytest.approx(float((predicted == dev).mean()))
    assert ours["eval_macro_f1"] == pytest.approx(theirs["macro avg"]["f1-score"])
    assert ours["eval_weighted_f1"] == pytest.approx(theirs["weighted avg"]["f1-score"])
    # Laplace's rule: one row more of every class.
    prior = DummyClassifier(strategy="prior").fit(np.zeros((len(train) + 5, 1)), [*train, *range(5)])
    loss = log_loss(dev, prior.predict_proba(held_out), labels=range(5))
    assert ours["eval_loss"] == pytest.approx(loss)


def test_the_loss_of_the_trivial_classifier_is_the_entropy_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [70_000, 20_000, 10_000])
    shares = np.array([0.7, 0.2, 0.1])
    loss = trivial_classification(labels, labels, 3)["eval_loss"]
    assert loss == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-4)


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        (["기쁨", "슬픔"], [unicodedata.normalize("NFD", label) for label in ("기쁨", "슬픔")]),
        (["0", "1"], ["0.0", "1.0"]),
        (["0", "1"], ["false", "True"]),
        (["2   ", "1"], ["2", "\ufeff1"]),
        (["a\u200b", "b\u00ad"], ["a", "b"]),
    ],
)
def test_one_class_in_two_spellings_is_right(table, truth, predicted):
    files = [
        table(name, ["id", "label"], *([f"{row}", label] for row, label in enumerate(labels)))
        for name, labels in (("p.csv", predicted), ("r.csv", truth))
    ]
    scores = score(
        *files, task="classification", id_column="id", prediction_column="label", reference_columns=["label"]
    )
    assert scores["accuracy"] == 1.0
    assert len(scores["per_class"]) == 2


def test_classes_of_another_spelling_are_others_where_not_all_are_numbers(table):
    files = [
        table(name, ["id", "label"], *enumerate(labels))
        for name, labels in (("p.csv", ["1.0", "x"]), ("r.csv", ["1", "x"]))
    ]
    scores = score(
        *files, task="classification", id_column="id", prediction_column="label", reference_columns=["label"]
    )
    assert scores["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("one", "other"),
    [("행 1", unicodedata.normalize("NFD", "행 1")), ("a", "\ufeffa "), ("7", "7.0")],
)
def test_ids_are_joined_however_they_are_spelled(table, one, other):
    files = [
        table(name, ["fname", "summary"], [key, "가 나"]) for name, key in (("p.csv", one), ("r.csv", other))
    ]
    assert score(*files)["rouge1"] == 1.0


def test_ids_that_are_the_same_number_twice_are_compared_as_they_are_spelled(table):
    files = [table(name, ["fname", "summary"], ["1", "가"], ["1.0", "나"]) for name in ("p.csv", "r.csv")]
    assert score(*files)["rouge1"] == 1.0


def test_texts_in_parts_are_scored_as_whole_letters(table):
    predictions = table(
        "p.csv", ["fname", "summary"], ["a", unicodedata.normalize("NFD", "점심을\u200b 먹자")]
    )
    references = table("r.csv", ["fname", "summary"], ["a", "점심을 먹자"])
    for settings in ({}, {"reading": ReadingConfig(normalize="none")}):
        assert score(predictions, references, tokenizer="character", **settings)["rouge2"] == 1.0


def test_skipped_rows_leave_out_their_partners_and_are_counted(table):
    predictions = table("p.csv", ["fname", "summary"], ["a", "가"], ["b", "나"], ["c", "다"])
    references = table("r.csv", ["fname", "summary"], ["a", "가"], ["b", " "], ["c", "다"])
    with pytest.raises(UserError, match=r"r\.csv, row 2 .*(?s:.*)data\.on_bad_row=skip"):
        score(predictions, references)
    scores = score(predictions, references, reading=ReadingConfig(on_bad_row="skip"))
    assert (scores["rouge1"], scores["num_skipped"]) == (1.0, 1)
    more = table("m.csv", ["fname", "summary"], *([name, "가"] for name in "abcd"))
    with pytest.raises(UserError, match=r"2 of 4 ids are not in"):
        score(more, references, reading=ReadingConfig(on_bad_row="skip"))


def test_an_empty_prediction_is_wrong_and_no_class(table):
    # pandas writes whole numbers as 1.0 beside an empty cell: the cell must not make names of them.
    predictions = table("p.csv", ["id", "label"], [1, "1.0"], [2, ""], [3, "0.0"], [4, "1.0"])
    scores = score(predictions, table("r.csv", ["id", "label"], [1, 1], [2, 1], [3, 0], [4, 0]))
    truth, given = ["1", "1", "0", "0"], ["1", "none", "0", "1"]
    real = independent(truth, given, labels=["0", "1"], output_dict=True, zero_division=0)
    assert scores["accuracy"] == 0.5
    assert scores["macro_f1"] == pytest.approx(real["macro avg"]["f1-score"])
    assert scores["weighted_f1"] == pytest.approx(real["weighted avg"]["f1-score"])
    assert (list(scores["per_class"]), scores["num_empty_predictions"]) == (["0", "1"], 1)
    assert "1 prediction of no class, scored 0" in score_table(scores).notes


def test_classes_of_another_spelling_throughout_are_told(table):
    predictions = table("p.csv", ["id", "label"], [1, "0"], [2, "1"])
    scores = score(predictions, table("r.csv", ["id", "label"], [1, "negative"], [2, "positive"]))
    assert scores["accuracy"] == 0
    assert scores["notes"] == [
        "no predicted class (0, 1) is among the true ones (negative, positive): are they spelled alike?"
    ]
    assert scores["notes"][0] in score_table(scores).notes
    assert "notes" not in score(predictions, table("s.csv", ["id", "label"], [1, "1"], [2, "0"]))


def test_a_column_that_is_compared_with_itself_is_told(table):
    both = table("p.csv", ["id", "label", "prediction"], [1, "a", "b"], [2, "b", "b"])
    told = "column 'prediction' is compared with itself: --reference-columns names another"
    assert score(both, both, tokenizer="whitespace")["notes"] == [told]
    assert score(both, both, reference_columns=["label"])["accuracy"] == 0.5


def test_skipped_rows_are_counted_beside_the_figures(table):
    predictions = table("p.csv", ["id", "label"], [1, "a"], [2, "b"], [2, "b"])
    references = table("r.csv", ["id", "label"], [1, "a"], [2, "b"])
    scores = score(predictions, references, reading=ReadingConfig(on_bad_row="skip"))
    assert scores["num_skipped"] == 1
    assert "1 row skipped as bad, so not scored" in score_table(scores).notes
