"""A table of any size is predicted block by block: the same bytes whoever predicts, also after a kill."""

from __future__ import annotations

import csv

import pytest

import dure
from dure.errors import UserError
from dure.events import EventLog
from dure.family import predicted_blocks, predicting_tables
from dure.family.predicting import predict_rows
from dure.family.predicting_tables import predict_file, rows_of
from dure.runs.folder import EVENTS_FILE
from dure.runtime.predicting import Where, predict_table


class Killed(BaseException):
    """What ends a command in the middle."""


@pytest.fixture(scope="module")
def runs(tiny, cpu, tmp_path_factory):
    """Two finished runs of one experiment with different seeds."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for seed in (1, 2):
        experiment = tiny("bert", "full", max_steps=2).with_({"experiment.seed": seed})
        found.append(dure.train(experiment, profile=cpu, output=folder / f"run_{seed}").path)
    return found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Make blocks of 8 rows, so that a small table has several."""
    for module in (predicted_blocks, predicting_tables):
        monkeypatch.setattr(module, "BLOCK_ROWS", 8)


@pytest.fixture
def table(tmp_path):
    """A table of 30 rows with ids, five of which have no text, the first and the last among them."""
    path = tmp_path / "table.csv"
    words = ["배송이", "정말", "늦어요", "그래도", "색상은", "아주", "예뻐요"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["번호", "text"])
        for row in range(30):
            writer.writerow(
                [
                    f"r{row}",
                    "" if row in (0, 7, 8, 20, 29) else " ".join(words[: 1 + row % 7] * (1 + row % 3)),
                ]
            )
    return path


@pytest.fixture
def predict(cpu, table):
    def call(
        runs, output, *, said=None, progress=lambda done, total: None, force=False, resume=False, spread=None
    ):
        how = {"overrides": ["data.on_bad_row=skip"], "force": force, "resume": resume, "progress": progress}
        how["notify"] = (lambda message: None) if said is None else said.append
        if spread is not None:
            return predict_file(runs, str(table), output, profile=cpu, spread=spread, **how)
        return predict_table(runs, str(table), output, where=Where(cpu), **how)

    return call


def backwards(predictor, encoded, blocks):
    """Predict as workers of a cluster do: with models of their own, and in another order."""
    family = predictor.family(print)
    model, tokenizer = predictor.load(family, print)
    for block in reversed(blocks):
        yield block, predict_rows(family, model, tokenizer, rows_of(encoded, block))


def test_rows_keep_their_order_and_skipped_ones_their_ids(runs, predict, tmp_path):
    outcome = predict(runs[:1], tmp_path / "out.csv")
    assert (outcome["rows"], outcome["skipped"]) == (25, 5)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["번호"] for row in rows] == [f"r{row}" for row in range(30)]
    assert [row["번호"] for row in rows if not row["label"]] == ["r0", "r7", "r8", "r20", "r29"]
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.parametrize("number", [1, 2])
def test_others_predict_the_bytes_of_one_process(runs, predict, tmp_path, number):
    predict(runs[:number], tmp_path / "one.jsonl")
    predict(runs[:number], tmp_path / "many.jsonl", spread=backwards)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_killed_command_goes_on_and_computes_no_block_twice(runs, predict, tmp_path, suffix):
    whole, output, said = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}", []
    predict(runs, whole)

    def killing(done, total):
        if done > 34:  # in the second model's rows
            raise Killed

    with pytest.raises(Killed):
        predict(runs, output, progress=killing, said=said)
    assert not output.exists()
    assert "--resume goes on" in said[-1]
    # As the guard does, which outlives a driver that is killed.
    EventLog(output.with_name(f"{output.name}.parts") / EVENTS_FILE, "driver").notified("ended from outside")
    with pytest.raises(UserError, match="did not end"):
        predict(runs, output)
    asked = []

    def counting(predictor, encoded, blocks):
        asked.extend(blocks)
        yield from backwards(predictor, encoded, blocks)

    predict(runs, output, resume=True, spread=counting)
    assert asked == [1, 2, 3], "25 rows are four blocks, and one of the second model was done"
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f"out.{suffix}.parts").exists()


def test_what_changed_meanwhile_is_refused_by_name_and_force_begins_anew(runs, predict, tmp_path, table):
    output = tmp_path / "out.csv"

    def killing(done, total):
        if done > 8:
            raise Killed

    with pytest.raises(Killed):
        predict(runs[:1], output, progress=killing)
    with pytest.raises(UserError, match="the models changed"):
        predict(runs[1:], output, resume=True)
    table.write_text(table.read_text(encoding="utf-8").replace("늦어요", "빨라요"), encoding="utf-8")
    with pytest.raises(UserError, match="the table changed"):
        predict(runs[:1], output, resume=True)
    predict(runs[:1], output, force=True)
    predict(runs[:1], tmp_path / "again.csv")
    assert output.read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_a_command_that_was_killed_behind_its_output_says_what_it_said(runs, predict, tmp_path, monkeypatch):
    output = tmp_path / "out.csv"

    def killed(self):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(predicted_blocks.PredictedBlocks, "remove", killed)
        with pytest.raises(Killed):
            predict(runs[:1], output)
    before = output.read_bytes()
    assert predict(runs[:1], output, resume=True)["rows"] == 25
    assert output.read_bytes() == before
    assert not (tmp_path / "out.csv.parts").exists()


def test_a_file_that_came_to_the_output_meanwhile_is_not_replaced_and_nothing_predicted_is_lost(
    runs, predict, tmp_path
):
    output = tmp_path / "out.csv"
    with pytest.raises(UserError, match="would be lost"):
        predict(runs[:1], output, progress=lambda done, total: output.write_text("mine"))
    assert output.read_text() == "mine"
    said: list[str] = []
    predict(runs[:1], output, resume=True, force=True, said=said)
    assert any("25 of 25 rows were predicted before" in line for line in said)
    assert len(output.read_text(encoding="utf-8").splitlines()) == 31


def test_a_folder_of_the_user_is_not_written_to(runs, predict, tmp_path):
    mine = tmp_path / "out.csv.parts" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="not what dure keeps"):
        predict(runs[:1], tmp_path / "out.csv", force=True)
    assert [file.name for file in mine.parent.iterdir()] == ["mine.txt"]


def test_parquet_has_the_rows_of_jsonl(runs, predict, tmp_path):
    import pandas as pd

    predict(runs[:1], tmp_path / "out.parquet")
    predict(runs[:1], tmp_path / "out.jsonl")
    parquet, lines = (
        pd.read_parquet(tmp_path / "out.parquet"),
        pd.read_json(tmp_path / "out.jsonl", lines=True),
    )
    assert list(parquet.columns) == list(lines.columns)
    assert parquet["번호"].tolist() == [f"r{row}" for row in range(30)]
    pd.testing.assert_frame_equal(parquet, lines, check_dtype=False)


def test_two_commands_on_one_output_exclude_each_other(tmp_path):
    blocks = predicted_blocks.PredictedBlocks(tmp_path / "out.csv")
    with (
        blocks.held({}, 1, resume=False),
        pytest.raises(UserError, match="another command"),
        predicted_blocks.PredictedBlocks(tmp_path / "out.csv").held({}, 1, resume=True),
    ):
        pass
