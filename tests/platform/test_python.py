"""dure from Python: verbs as functions, rows made by hand, logs, and what an assignment answers."""

from __future__ import annotations

import json
import sys
from dataclasses import fields

import pandas as pd
import pytest

import dure
from dure import api
from dure.cli import options
from dure.data import DialogueSummarizationDataset
from dure.errors import UserError
from dure.family import load_family
from dure.logging import Logger
from dure.running import Common, asked_for
from dure.runs.folder import RunFolder
from dure.studies.life_cycle import Asked

DIALOGUES = [
    "#Person1#: 안녕하세요?\n#Person2#: 네, 안녕하세요.",
    "#Person1#: 몇 시예요?\n#Person2#: 세 시예요.",
] * 6
SUMMARIES = ["두 사람이 인사한다.", "시간을 묻는다."] * 6
LEAVES = {"experiment.yaml", "environment.json", "result.json", "events.jsonl", "metrics.jsonl", "run.log", "final_model"}  # fmt: skip


class Rows:
    """Rows as a hand-written dataset of PyTorch holds them: tensors, padded."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        import torch

        row = dict(self.rows[place])
        room = 40 - len(row["input_ids"])
        return row | {
            "input_ids": torch.tensor(row["input_ids"] + [0] * room),
            "attention_mask": torch.tensor(row["attention_mask"] + [0] * room),
            "labels": torch.tensor(row["labels"] + [-100] * 3),
        }


@pytest.fixture(scope="module")
def loaded(tiny, cpu):
    config = tiny("t5", "full", max_steps=4)
    return config, *dure.load_model_and_tokenizer(config, profile=cpu)


def rows_of(config, tokenizer):
    limits = (config.tokenizer.encoder_max_len, config.tokenizer.decoder_max_len)
    return DialogueSummarizationDataset(DIALOGUES, SUMMARIES, tokenizer, *limits)


def test_two_lists_of_texts_train_as_the_old_guide_says_and_leave_a_run_that_goes_on(loaded, cpu, tmp_path):
    config, model, tokenizer = loaded
    train = rows_of(config, tokenizer)
    assert train[0]["reference"] == SUMMARIES[0]
    assert train[0]["lead"] == "#Person1#: 안녕하세요?"
    log = Logger(tmp_path / "guide.log", print_also=False)
    made = {"config": config, "model": model, "tokenizer": tokenizer, "profile": cpu, "logger": log}
    trainer = dure.create_trainer(
        train_dataset=train, eval_dataset=Rows(train), use_wandb=False, output=tmp_path / "run", **made
    )
    results = trainer.train()
    log.close()
    assert {each.name for each in (tmp_path / "run").iterdir()} >= LEAVES
    assert 0 <= results["eval_metrics"]["eval_rouge_sum"] <= 3
    result = RunFolder(tmp_path / "run").read_result()
    assert result.state == "completed"
    assert result.metrics["num_train_rows"] == 12
    assert dure.predict(tmp_path / "run", ["안녕하세요?"], profile=cpu)[0].keys() == {"summary"}

    config = config.with_("training.max_steps=8")
    again = dure.create_trainer(
        config, model, tokenizer, train, train, use_wandb=False, profile=cpu, resume=tmp_path / "run"
    ).train()
    assert again["steps"] == 8
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert "resumed_step" in json.dumps(events)
    with pytest.raises(UserError, match=r"training.learning_rate"):
        dure.create_trainer(
            config.with_("training.learning_rate=0.5"), model, tokenizer, train, resume=tmp_path / "run", profile=cpu
        )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"input_ids": [1]}], "lacks 'labels'"),
        ([[1, 2]], "a row is a list"),
        ([], "no row"),
        (iter([]), "no rows by number"),
        ({"input_ids": [[1]], "labels": [[1]]}, "a dict has no rows by number"),
        (pd.DataFrame({"input_ids": [[1]], "labels": [[1]]}), "a DataFrame has no rows by number"),
    ],
)
def test_rows_that_do_not_fit_are_told_what_a_row_holds(loaded, cpu, tmp_path, rows, said):
    config, model, tokenizer = loaded
    with pytest.raises(UserError, match=said):
        dure.create_trainer(config, model, tokenizer, rows, profile=cpu, output=tmp_path / "run")


def test_lists_that_do_not_pair_up_are_refused(loaded):
    with pytest.raises(UserError, match="2 dialogues do not pair up with 1 summaries"):
        DialogueSummarizationDataset(["a", "b"], ["c"], loaded[2])


def test_a_log_takes_what_is_printed_and_shows_it_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value")
    stdout = sys.stdout
    log = Logger(tmp_path / "logs" / "a.log")
    log.start_redirect()
    print("printed very-secret-value")
    log.info("told %d", 3)
    log.stop_redirect()
    print("not in the log")
    assert sys.stdout is stdout
    log.close()
    text = (tmp_path / "logs" / "a.log").read_text(encoding="utf-8")
    assert "printed" in text
    assert "told 3" in text
    assert "very-secret-value" not in text
    assert "not in the log" not in text
    assert "printed" in capsys.readouterr().out


def test_an_assignment_answers_with_the_override_to_write():
    config = dure.load_config("kobert_emotion")
    with pytest.raises(AttributeError, match=r'with_\("training.epochs=3"\)'):
        config.training.epochs = 3
    with pytest.raises(UserError, match=r"wandb\.enabled=true"):
        config.wandb.enabled = True
    assert config.with_("training.epochs=3").training.epochs == 3
    assert config.with_(["training.epochs=3", "experiment.seed=1"]).experiment.seed == 1
    with pytest.raises(UserError, match="epoch"):
        config.with_("training.epoch=3")


def test_no_common_option_is_lost_on_its_way_to_a_study():
    known = {each.name for each in fields(Asked)}
    assert known >= Common.__annotations__.keys()
    assert known >= {each.name for each in fields(options.Training)}


def test_strings_and_paths_are_taken_and_a_path_resumes(tmp_path, cpu):
    asked = asked_for({"resume": tmp_path, "profile": cpu, "samples": 3})
    assert (asked.resume, asked.output, asked.machine, asked.samples) == (True, tmp_path, cpu, 3)
    assert asked_for({"output": "out"}).output.name == "out"
    with pytest.raises(UserError, match="no experiment is named"):
        dure.batch()
    with pytest.raises(UserError, match="kobert_emotion"):
        dure.train("kobert_emotio")


def test_train_returns_where_the_model_lies_and_predict_and_evaluate_take_it(tiny, cpu, tmp_path):
    run = dure.train(tiny("bert", "full"), profile=cpu, output=tmp_path / "run", epochs=1)
    assert run.state == "completed"
    assert (run.final_model / "config.json").is_file()
    found = dure.predict(run.path, ["배송이 늦어요", "좋아요"], profile="cpu")
    assert len(found) == 2
    assert "label" in found[0]
    table = tmp_path / "table.csv"
    table.write_text("text,label\n배송이 늦어요,불만\n좋아요,칭찬\n", encoding="utf-8")
    scores = dure.evaluate(run.path, table, profile=cpu)
    assert scores["rows"] == 2
    assert set(scores["metrics"]) >= {"eval_accuracy", "eval_loss"}
    assert "training_texts" not in scores["notes"]
    seen = load_family(tiny("bert", "full")).sample("train")[0]
    table.write_text(f"text,label\n{seen['text']},{seen['label']}\n좋아요,칭찬\n", encoding="utf-8")
    told = dure.evaluate(run.path, table, profile=cpu)["notes"]["training_texts"]
    assert told == "1 of 2 rows have a text of the training table, which flatters the scores"
    again = dure.train(tiny("bert", "full"), profile=cpu, resume=tmp_path / "run", epochs=1)
    assert again.metrics == run.metrics


def test_a_broken_file_is_told_in_the_catalogue_and_hides_no_other(tmp_path, monkeypatch):
    folder = tmp_path / "search_spaces" / "experiments"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("a: [")
    monkeypatch.chdir(tmp_path)
    found = api.catalogue()
    assert found["experiments"]["broken"].startswith("cannot be read: search_spaces/experiments/broken.yaml:")
    assert "KoBART" in found["experiments"]["kobart_baseline"]
    assert {"studies", "spaces", "profiles"} < {*found}
