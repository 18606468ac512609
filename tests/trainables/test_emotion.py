"""The emotion family: what it has beside classification, on rows with one label and with several."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from torch.nn import functional

from dure import api
from dure.config import load_experiment, rehearsal_of
from dure.config.schema import Experiment
from dure.data.labels import classes_of
from dure.data.tables import read_table
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus, read_split
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest, run
from dure.training.trainer import ModelTrainer
from trainables.emotion import LabelsReader

MULTI = {"multi_label": True, "label_separator": " "}
CELLS = ("0", " 10 2", "2  10 2", "0 2")


def silent(message: str) -> None:
    pass


@pytest.fixture
def on_tables(tiny, tmp_path):
    """An experiment on a small table of its own, with labels that are numbers, several in one cell."""

    def make(task: dict, dev: tuple[str, ...] = ("10 0", "2"), **more) -> Experiment:
        rows = [
            (f"<b>오늘</b> {word} ㅋㅋㅋㅋ {number}번", CELLS[number % 4])
            for number, word in enumerate("가나다라마바사아자차카타" * 2)
        ]
        for name, cells in {"train": rows, "dev": [(f"새 글 {cell}", cell) for cell in dev]}.items():
            with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("문장", "감정"), *cells])
        experiment = tiny(
            "bert", "full", family="trainables.emotion", task=task, best_metric="eval_macro_f1", **more
        )
        return Experiment.model_validate(
            experiment.model_dump()
            | {
                "data": {
                    "train": str(tmp_path / "train.csv"),
                    "dev": str(tmp_path / "dev.csv"),
                    "columns": {"text": "문장", "label": "감정"},
                }
            }
        )

    return make


def test_the_labels_of_a_cell_are_told_apart_saved_scored_and_predicted_joined(
    on_tables, cpu, tmp_path
) -> None:
    experiment = on_tables(MULTI | {"threshold": 0.01})
    result = run(RunRequest(experiment, cpu, tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    config = json.loads((folder.final_model / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "0", "1": "2", "2": "10"}
    assert config["problem_type"] == "multi_label_classification"
    figures = {"subset_accuracy", "micro_f1", "macro_f1", "loss", "precision[10]", "recall[2]", "f1[0]"}
    assert {f"eval_{name}" for name in figures} <= set(result.metrics)
    assert result.metrics["eval_support[10]"] == 1

    (tmp_path / "new.csv").write_text("문장\n가나다 이야기\n라마바 이야기\n", encoding="utf-8")
    outcome = api.predict(
        folder.path,
        tmp_path / "new.csv",
        tmp_path / "out.csv",
        profile=cpu,
        progress=lambda done, all: None,
        notify=silent,
    )
    assert outcome["rows"] == 2
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "probability_0", "probability_2", "probability_10"]
    assert [row["label"] for row in rows] == ["0 2 10"] * 2
    sums = [sum(float(row[f"probability_{name}"]) for name in ("0", "2", "10")) for row in rows]
    assert sums != pytest.approx([1, 1], abs=1e-3)


@pytest.mark.parametrize("name", ["lists.parquet", "lists.jsonl", "pandas.csv"])
def test_emotions_of_a_row_may_stand_in_a_list(name, on_tables, tmp_path) -> None:
    """As the hub keeps them; a list in a CSV, as pandas writes one, used to be a single emotion."""
    path, family = tmp_path / name, load_family(on_tables(MULTI))
    frame = pandas.DataFrame({"문장": ["가", "나"], "감정": [[0, 6, 10], [2]]})
    match path.suffix:
        case ".parquet":
            frame.to_parquet(path)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
        case ".csv":
            frame.to_csv(path, index=False)
    columns = {"text": "문장", "label": "감정"}
    table = read_table(path, family.roles, columns, cache_folder=tmp_path / "cache")
    assert list(table.cells("label")) == ["0 6 10", "2"]
    assert classes_of(table, "label", " ") == ("0", "2", "6", "10")


def test_a_list_without_an_emotion_is_a_bad_row() -> None:
    reader = LabelsReader(" ")
    assert reader.read("['joy', 'sad']") == reader.read('["joy", "sad"]') == "joy sad"
    assert [reader.read(cell) for cell in ("joy sad", "[joy", "[ 0  6\n 10]")] == [
        "joy sad",
        "[joy",
        "0 6 10",
    ]
    for cell in ("[]", "[[1], 2]"):
        with pytest.raises(UserError, match="holds"):
            reader.read(cell)


def test_labels_from_the_threshold_on_are_given_and_there_may_be_none(on_tables) -> None:
    family = load_family(on_tables(MULTI | {"threshold": 0.6}))
    assert family.label_of([0.6, 0.59, 0.9], ["a", "b", "c"]) == "a c"
    assert family.label_of([0.1, 0.2, 0.3], ["a", "b", "c"]) == ""


def test_the_validation_loss_is_the_plain_mean_over_answers(on_tables, cpu, tmp_path) -> None:
    objective = {"label_smoothing": 0.3, "class_weights": "balanced"}
    family = load_family(on_tables(MULTI, objective=objective, eval_batch_size=1))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu)
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, corpus.dev, profile=cpu, folder=RunFolder(tmp_path)
    )
    metrics = trainer.evaluate()
    batch = family.batches(corpus.tokenizer, model).collate(list(corpus.dev))
    labels = batch.pop("labels")
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0]]
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    expected = functional.binary_cross_entropy_with_logits(logits, labels)
    assert metrics["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_balanced_weights_of_many_labels_are_of_their_yes_and_no(on_tables, cpu) -> None:
    family = load_family(on_tables(MULTI, objective={"class_weights": "balanced"}))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu)
    weights = family.objective(model, corpus.train).class_weights
    yes = numpy.array([12, 18, 12])  # of 24 rows, by the cells above
    numpy.testing.assert_allclose(weights.numpy(), numpy.stack([24 / (2 * (24 - yes)), 24 / (2 * yes)]))
    notes = family.metric_notes()
    assert notes["class_weight[0]"] == pytest.approx(1.0)
    assert notes["class_weight[2]"] == pytest.approx(24 / 36)
    assert notes["class_weight_of_no[2]"] == pytest.approx(24 / 12)


def test_balanced_weights_are_told_once_and_stand_in_the_record(on_tables, cpu) -> None:
    told: list[str] = []
    family = load_family(on_tables({}, dev=("0 2",), objective={"class_weights": "balanced"}), told.append)
    corpus = load_corpus(family, notify=silent)
    family.objective(family.load_model(corpus.tokenizer, cpu), corpus.train)
    (line,) = [line for line in told if line.startswith("class weights")]
    counts = numpy.bincount(corpus.train["labels"][:])
    for place, name in enumerate(family.classes):
        weight = len(corpus.train) / (len(counts) * counts[place])
        assert f"{name} {weight:.3g}" in line
        assert family.metric_notes()[f"class_weight[{name}]"] == pytest.approx(weight)


def test_a_label_that_training_lacks_is_refused_with_its_row(on_tables) -> None:
    family = load_family(on_tables(MULTI, dev=("2", "0 7")))
    with pytest.raises(UserError, match="no class '7'") as caught:
        load_corpus(family, notify=silent)
    assert "row 2" in caught.value.where


def test_a_cell_is_one_label_unless_several_are_meant(on_tables) -> None:
    family = load_family(on_tables({}, dev=("0 2",)))
    load_corpus(family, notify=silent)
    assert family.classes == ("0", "0 2", "10 2", "2  10 2")


@pytest.mark.parametrize("option", [{"label_separator": " "}, {"threshold": 0.4}])
def test_options_of_several_labels_are_refused_where_a_text_has_one(tiny, option) -> None:
    with pytest.raises(UserError, match="multi_label") as caught:
        load_family(tiny("bert", "full", family="trainables.emotion", task=option))
    assert "task" in caught.value.where


def test_cleaned_text_is_what_the_model_reads_and_what_the_cache_keeps_apart(on_tables) -> None:
    plain, clean = (load_family(on_tables(MULTI | task)) for task in ({}, {"cleaning": {}}))
    assert plain.encoding_key() != clean.encoding_key()
    corpus = load_corpus(plain, notify=silent)
    read = corpus.tokenizer
    rows = {"text": ["<b>오늘</b> 가 ㅋㅋㅋㅋ"]}
    load_corpus(clean, notify=silent, tokenizer=read)
    assert clean.encode(rows, read)["input_ids"] == [read("오늘 가 ㅋㅋ")["input_ids"]]
    assert plain.encode(rows, read)["input_ids"] == [read(rows["text"][0])["input_ids"]]


def steps_on(experiment: Experiment, profile, folder: Path):
    """Train two steps of the rehearsal on 64 rows."""
    training = experiment.training.model_copy(update={"max_steps": 2, "num_data_workers": 0})
    data = experiment.data.model_copy(update={"max_train_rows": 64, "max_dev_rows": 16})
    mini = experiment.rehearsal.model_copy(update={"num_layers": 1, "hidden_size": 32, "num_evaluations": 1})
    changes = {"training": training, "data": data, "rehearsal": mini}
    return run(RunRequest(rehearsal_of(experiment.model_copy(update=changes)), profile, folder))


def classes_of_training(family) -> tuple[str, ...]:
    family.survey({"train": read_split(family, "train", family.experiment.data.train)})
    return family.classes


def test_kote_runs_by_config_alone(shared_data, cpu, tmp_path) -> None:
    table = shared_data / "kote" / "val.csv"
    experiment = load_experiment(
        "kobert_emotion",
        [
            f"data.train={table}",
            "data.dev=null",
            "data.columns.label=labels",
            "task.multi_label=true",
            'task.label_separator=" "',
            "task.cleaning.repeats=3",
        ],
    )
    family = load_family(rehearsal_of(experiment))
    load_corpus(family, notify=silent)
    assert family.classes == tuple(map(str, range(44)))
    assert steps_on(experiment, cpu, tmp_path / "run").metrics["steps"] == 2
    named = load_family(
        load_experiment(
            "kobert_emotion",
            [
                f"data.train={table}",
                "data.columns.label=label_names",
                "task.multi_label=true",
                "data.dev=null",
            ],
        )
    )
    assert set(classes_of_training(named)) == set(
        json.loads((shared_data / "kote" / "labels.json").read_text(encoding="utf-8"))
    )


def test_the_chatbot_table_runs_by_config_alone(shared_data, cpu, tmp_path) -> None:
    table = shared_data / "chatbot" / "ChatbotData.csv"
    experiment = load_experiment(
        "kobert_emotion", [f"data.train={table}", "data.dev=null", "data.columns.text=Q"]
    )
    assert classes_of_training(load_family(experiment)) == ("0", "1", "2")
    assert steps_on(experiment, cpu, tmp_path / "run").metrics["steps"] == 2
