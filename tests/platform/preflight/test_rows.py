"""Every way in which configuration and tables can be wrong has its own check and message."""

from __future__ import annotations

import json

import pytest

ROWS = [f"{number},the {number}. text,{'good' if number % 2 else 'bad'}" for number in range(40)]


@pytest.fixture
def tables(tmp_path):
    """Write tables and return the overrides that name them: ``tables(train=[…])``."""

    def write(header="id,text,label", *, train, dev=None):
        dev = [f"d{row}".replace("text", "words") for row in ROWS[:10]] if dev is None else dev
        for name, rows in (("train", train), ("dev", dev)):
            (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return ["data.train=train.csv", "data.dev=dev.csv"]

    return write


def test_broken_yaml_is_told_with_its_line(tmp_path, failed):
    (tmp_path / "mine.yaml").write_text("extends: transfer_bert\ntraining: [\n", encoding="utf-8")
    (check,) = failed("mine.yaml").values()
    assert check.name == "experiment"
    assert "mine.yaml" in check.found


def test_a_wrong_key_a_wrong_option_and_a_wrong_metric_are_three_checks(failed):
    assert "training.epoch" in failed("transfer_bert", ["training.epoch=3"])["experiment"].found
    assert "task: unknown key 'nothing'" in failed("transfer_bert", ["task.nothing=1"])["family"].found
    assert "eval_rouge" in failed("transfer_bert", ["training.best_metric=eval_rouge"])["best metric"].found


def test_an_unknown_profile_is_told_and_the_experiment_is_checked_all_the_same(look):
    checks = look("transfer_bert", profile="rtx309", rehearse=True)
    assert checks["profile"].state == "failed"
    assert checks["train table"].state == checks["model"].state == "ok"


def test_a_batch_that_the_workers_cannot_share_is_told(tmp_path, failed):
    (tmp_path / "two.yaml").write_text("extends: cpu\nname: two\nnum_workers: 2\n", encoding="utf-8")
    odd = ["training.batch_size=3", "training.gradient_accumulation_steps=2"]
    check = failed("transfer_bert", odd, profile="two.yaml")["batch"]
    assert "3 rows cannot be shared out" in check.found
    even = "training.batch_size=2 training.gradient_accumulation_steps=3"
    assert check.remedy == f"{even}, or a profile with fewer workers"
    assert "batch" not in failed("transfer_bert", even.split(), profile="two.yaml")


def test_a_sound_table_says_rows_classes_and_unknown_tokens(tables, look):
    checks = look("transfer_bert", tables(train=ROWS), rehearse=True)
    assert not [check for check in checks.values() if check.state != "ok"]
    assert checks["train table"].found == "40 rows of train.csv"
    assert "2 classes (bad: 20, good: 20)" in checks["targets"].found
    assert "unknown tokens" in checks["encoding"].found


def test_what_a_family_tells_of_its_tokenizer_is_told_once(tmp_path, look):
    (tmp_path / "dated.jinja").write_text(
        "{{ strftime_now('%d') }}{% for each in messages %}{{ each.role }}: {{ each.content }}</s>{% endfor %}"
    )
    chats = (
        [{"role": "user", "content": f"가 {n}"}, {"role": "assistant", "content": "나"}] for n in range(8)
    )
    lines = [json.dumps({"messages": chat}) for chat in chats]
    (tmp_path / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    small = ["rehearsal.hidden_size=32", "rehearsal.num_layers=1", "task.chat_template=dated.jinja"]
    checks = look("causal_qwen", ["data.train=chats.jsonl", "data.dev=25%", *small], rehearse=True)
    assert "today's date" in checks["encoding"].found
    assert "read as messages" in checks["targets"].found
    assert "read as messages" not in checks["encoding"].found


def test_every_bad_row_is_counted_and_the_first_one_told(tables, failed):
    rows = [*ROWS[:10], "90,,good", "91,,good", "1,again,good", *ROWS[10:]]
    checks = failed("transfer_bert", tables(train=rows), rehearse=True)
    assert list(checks) == ["train table"]
    found = checks["train table"].found
    assert "3 bad of 43 rows" in found
    assert "2 rows skipped: column 'text' is empty (rows 11, 12)" in found
    assert "1 row skipped: column 'id' repeats an id (row 13)" in found
    assert "row 11 (line 12)" in found
    assert "data.on_bad_row=skip" in checks["train table"].remedy


def test_where_no_row_is_right_the_first_bad_one_is_told_in_full(tables, failed):
    check = failed("transfer_bert", tables(train=[f"{row}," for row in ROWS]), rehearse=True)["train table"]
    assert "train.csv, row 1 (line 2): the row has 4 cells" in check.found
    assert "data.on_bad_row=error" not in check.remedy


def test_a_missing_table_and_a_missing_column_are_told(tables, failed):
    assert (
        "data.train=none.csv"
        in failed("transfer_bert", ["data.train=none.csv", "data.dev=null"])["sources"].found
    )
    checks = failed("transfer_bert", tables("id,text,kind", train=ROWS), rehearse=True)
    assert list(checks) == ["train table", "dev table"]
    assert "no column 'label'" in checks["train table"].found


def test_a_class_that_only_validation_has_is_told(tables, failed):
    checks = failed("transfer_bert", tables(train=ROWS, dev=["d1,other words,ugly"]), rehearse=True)
    assert list(checks) == ["targets"]
    assert "ugly" in checks["targets"].found


@pytest.mark.parametrize(("mode", "state"), [("drop", "ok"), ("warn", "ok"), ("error", "failed")])
def test_texts_on_both_sides_are_counted(tables, look, mode, state):
    settings = [*tables(train=ROWS, dev=ROWS[:4]), f"data.on_overlap={mode}"]
    check = look("transfer_bert", settings, rehearse=True)["split"]
    assert check.state == state
    assert "4 of 40 training rows" in check.found


def test_a_table_with_too_few_texts_for_its_folds_is_told(tables, failed):
    settings = [*tables(train=ROWS[:3]), "data.fold.number=1", "data.fold.of=5"]
    assert "3 different texts" in failed("transfer_bert", settings, rehearse=True)["split"].found


def test_what_is_on_the_hub_only_is_skipped_and_nothing_is_downloaded(look):
    checks = look("kobart_baseline")
    assert not [check for check in checks.values() if check.state == "failed"]
    assert {name for name, check in checks.items() if check.state == "skipped"} == {
        "encoding", "model", "memory", "disk",
    }  # fmt: skip
    assert "nothing is downloaded" in checks["encoding"].found


def test_a_checkpoint_of_another_kind_is_told(runs, failed):
    settings = [f"model.checkpoint={runs['packed'] / 'final_model'}", "tokenizer.max_unknown_rate=1"]
    (check,) = failed("transfer_bert", settings).values()
    assert check.name == "model"
    assert "bart model, which is no text encoder" in check.found


def test_a_preset_is_counted_without_its_memory(look):
    checks = look("red_heart_730m")
    assert checks["model"].found.startswith("729,199,382 parameters, all trained")


def test_the_labels_of_rows_with_several_are_counted_and_not_their_combinations(tables, look):
    rows = [f"{number},text {number},{number % 7} {number % 5}" for number in range(35)]
    dev = ["a,other words,1 2", "b,more words,3"]
    settings = [*tables(train=rows, dev=dev), "task.multi_label=true", "task.label_separator=' '"]
    found = look("kobert_emotion", settings, rehearse=True)["targets"].found
    assert "label: 7 labels, several in a row (" in found


def test_texts_of_two_labels_are_told(tables, look):
    found = look("transfer_bert", tables(train=[*ROWS, "99,the 3. text,bad"]), rehearse=True)["targets"].found
    assert "1 text stands in rows of different label" in found
