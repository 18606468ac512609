"""Wrong input: a short message that names the place, exit 2, no traceback, and nothing left behind."""

from __future__ import annotations

import pytest

from .conftest import TINY, call

TRAIN = ("train", "kobart_baseline", "--rehearse", *TINY)
REAL = ("data.train=good.csv", "data.dev=good_dev.csv")

CASES = {
    # arguments, what the message must say
    "unknown verb": (["trian"], ["'train'"]),
    "unknown option": (["train", "x", "--rehears"], ["--rehearse"]),
    "missing argument": (["train"], ["EXPERIMENT", "dure train --help"]),
    "missing option": (["sample"], ["--output"]),
    "too many arguments": (["list", "extra"], ["extra"]),
    "no number": (["train", "kobart_baseline", "--samples", "many"], ["--samples"]),
    "unknown choice": (["score", "a", "b", "--tokenizer", "x"], ["--tokenizer", "morpheme"]),
    "unknown schema": (["schema", "experiments"], ["'experiments'", "experiment"]),
    "unknown experiment": (["train", "kobart_basline"], ["'kobart_basline'", "try: kobart_baseline"]),
    "unknown file": (["train", "nope/none.yaml"], ["nope/none.yaml"]),
    "unknown study": (["batch", "sevn"], ["'sevn'", "try: seven"]),
    "unknown profile": ([*TRAIN, "--profile", "rtx309"], ["'rtx309'", "try: rtx3090"]),
    "unknown key": ([*TRAIN, "training.lerning_rate=1"], ["command line", "training.learning_rate"]),
    "wrong type": ([*TRAIN, "training.learning_rate=fast"], ["command line", '"fast"', "a number"]),
    "no override": ([*TRAIN, "rehearse"], ["'rehearse'", "section.key=value"]),
    "override that is no YAML": ([*TRAIN, "lora.targets=[q"], ["lora.targets=[q"]),
    "4-bit without lora": (["train", "kobart_baseline", "lora=null"], ["model.quantization", "lora"]),
    "no samples": ([*TRAIN, "--samples", "0"], ["--samples", "0"]),
    "number beyond the study": (["batch", "seven", "--only", "9"], ["--only", "'9'", "1 to 7"]),
    "empty choice": (["batch", "seven", "--only", ""], ["--only"]),
    "family that is not there": ([*TRAIN, "family=trainables.nope"], ["family", "trainables.nope"]),
    "module without a family": ([*TRAIN, "family=os"], ["family", "'os'"]),
    "unknown option of the family": ([*TRAIN, "task.rouge_tokeniser=default"], ["task", "rouge_tokenizer"]),
    "wrong option of the family": ([*TRAIN, "task.rouge_tokenizer=english"], ["task", "morpheme"]),
    "wrong option, dry": ([*TRAIN, "--dry-run", "task.rouge_tokenizer=english"], ["task", "morpheme"]),
    "unknown metric": ([*TRAIN, "training.best_metric=eval_rouge"], ["training.best_metric", "eval_rouge1"]),
    "missing table": ([*TRAIN, "data.train=none.csv", "data.dev=none.csv"], ["data.train=none.csv"]),
    "missing table of a batch": (
        ["batch", "seven", "--rehearse", "data.train=none.csv", "data.dev=none.csv"],
        ["data.train=none.csv"],
    ),
    "train without dev": ([*TRAIN, "data.train=good.csv"], ["data.dev", "data.dev=FILE"]),
    "folder for a table": ([*TRAIN, "data.train=.", "data.dev=."], ["data.train=.", "folder"]),
    "unknown format": ([*TRAIN, "data.train=text.xlsx", "data.dev=text.xlsx"], [".xlsx", ".csv"]),
    "output is a file": ([*TRAIN, "--output", "good.csv"], ["--output good.csv", "file"]),
    "output is not empty": ([*TRAIN, "--output", "."], ["--output .", "--resume"]),
    "output below a file": ([*TRAIN, "--output", "good.csv/run"], ["--output good.csv/run"]),
    "nothing to resume": (["train", "kobart_baseline", "--resume"], ["--resume", "outputs/kobart_baseline"]),
    "nothing to resume there": ([*TRAIN, "--resume", "--output", "."], ["--resume", "experiment.yaml"]),
    "no study to resume": (["batch", "seven", "--resume", "--output", "."], ["--resume", "study.yaml"]),
    "device that is not here": ([*TRAIN, "--profile", "m4"], ["profile m4", "mps"]),
    "nobody at the address": ([*TRAIN, "--address", "127.0.0.1:1"], ["--address 127.0.0.1:1", "refused"]),
    "predict without a run": (["predict", "none", "good.csv", "-o", "o.csv"], ["none", "final_model"]),
    "score without files": (["score", "none.csv", "good.csv"], ["none.csv"]),
    "score of other ids": (["score", "good_dev.csv", "good.csv"], ["ids", "good.csv"]),
    "score without the id": (["score", "plain.csv", "good.csv"], ["plain.csv", "--id-column"]),
    "score without predictions": (
        ["score", "good.csv", "good.csv", "--prediction-column", "sumary"],
        ["'sumary'", "--prediction-column=summary"],
    ),
    "score with a column too many": (
        ["score", "good.csv", "good.csv", "--reference-columns", "summary,topic"],
        ["'topic'", "--reference-columns"],
    ),
    "sample into a file": (["sample", "-o", "good.csv"], ["good.csv"]),
}

# These are known only once the run reads its rows or builds its model: the run is recorded as failed.
LATE_CASES = {
    "missing column": ([*TRAIN, "data.train=nocolumn.csv", "data.dev=good_dev.csv"], ["nocolumn.csv", "summary"]),
    "empty table": ([*TRAIN, "data.train=zero.csv", "data.dev=good_dev.csv"], ["zero.csv", "empty"]),
    "cut quote": ([*TRAIN, "data.train=cut.csv", "data.dev=good_dev.csv"], ["cut.csv, row 2", "quote"]),
    "unreadable byte": ([*TRAIN, "data.train=bytes.csv", "data.dev=good_dev.csv"], ["bytes.csv, line 3", "0xff"]),
    "empty cell": ([*TRAIN, "data.train=hole.csv", "data.dev=good_dev.csv"], ["hole.csv, row 2", "summary"]),
    "unknown role": ([*TRAIN, *REAL, "data.columns.txt=dialogue"], ["data.columns.txt", "data.columns.text"]),
    "LoRA target without a layer": ([*TRAIN, "lora.targets=[q_prj]"], ["lora.targets", "'q_prj'", "q_proj"]),
    "fp16 on T5": (
        ["train", "eenzeenee_t5", "--rehearse", *TINY, "training.precision=fp16"],
        ["training.precision", "fp16", "t5"],
    ),
    "hub out of reach": (["train", "kobart_baseline"], ["model.checkpoint", "--rehearse"]),
    "no checkpoint in the folder": (["train", "kobart_baseline", "model.checkpoint=sub"], ["config.json"]),
}  # fmt: skip


@pytest.fixture
def tables(tmp_path):
    head, row = "fname,dialogue,summary\n", 'a{0},"#Person1#: 안녕 {0}\n#Person2#: 네, {0}",인사 {0}\n'
    files = {
        "good.csv": head + "".join(row.format(number) for number in range(8)),
        "good_dev.csv": head + "".join(row.format(number) for number in range(20, 23)),
        "plain.csv": "summary\n인사\n",
        "nocolumn.csv": "fname,dialogue\na,안녕\n",
        "zero.csv": "",
        "cut.csv": head + 'a,안녕,인사\nb,"끝없는',
        "hole.csv": head + "a,안녕,인사\nb,안녕히,\n",
        "text.xlsx": "x",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "bytes.csv").write_bytes(head.encode() + "a,안녕,인사\n".encode() + b"b,\xff\xfe,x\n")
    (tmp_path / "sub").mkdir()
    return tmp_path


def check_message(outcome, said):
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert "defect" not in outcome.err
    message = outcome.err[outcome.err.index("dure: ") :]
    assert len(message.splitlines()) <= 3, message
    for text in said:
        assert text in message


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_named_before_anything_starts(case, tables):
    arguments, said = CASES[case]
    before = sorted(tables.rglob("*"))
    check_message(call(*arguments), said)
    if case != "nobody at the address":
        assert sorted(tables.rglob("*")) == before


@pytest.mark.parametrize("case", LATE_CASES)
def test_wrong_input_that_a_run_finds_is_named_and_recorded(case, tables):
    arguments, said = LATE_CASES[case]
    outcome = call(*arguments, "--output", "run", "--json")
    check_message(outcome, said)
    reason = outcome.err[outcome.err.index("dure: ") + len("dure: ") :].splitlines()[0]
    assert outcome.err.count(reason) == 1
    assert '"failed"' in (tables / "run" / "result.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("flags", [["--debug", "list", "x"], ["list", "x", "--debug"], ["-v", "list", "--debug", "x"]])  # fmt: skip
def test_debug_shows_the_traceback_wherever_it_stands(flags):
    outcome = call(*flags)
    assert outcome.code == 2
    assert "Traceback" in outcome.err


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tables):
    monkeypatch.setenv("DURE_CACHE", "good.csv/cache")
    check_message(call(*TRAIN), ["DURE_CACHE", "good.csv/cache"])


def test_a_run_is_not_continued_with_other_settings(trained):
    folder = trained[1]
    outcome = call(*TRAIN, "--resume", "--output", folder, "training.weight_decay=0.5")
    check_message(outcome, ["training.weight_decay", "0.5", "experiment.yaml"])


def test_predictions_that_cannot_be_written_are_refused_before_predicting(trained, tables):
    for output in (".", "good.csv/deep/o.csv"):
        outcome = call("predict", trained[1], "good.csv", "-o", output)
        check_message(outcome, [f"--output {output}"])
        assert "predicting" not in outcome.err


def test_a_study_folder_is_no_run_and_names_its_experiments(trained):
    folder = trained[1]
    check_message(call("predict", folder.parent, "x.csv", "-o", "o.csv"), [str(folder.parent), folder.name])


def test_a_run_that_fails_by_itself_exits_1_and_its_record_is_the_json(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from trainables.summarization import Summarization\n"
        "class Broken(Summarization):\n"
        "    def objective(self, model, train):\n"
        "        raise ArithmeticError('no loss')\n",
        encoding="utf-8",
    )
    outcome = call(*TRAIN, "family=broken", "--output", "run", "--json")
    assert outcome.code == 1
    assert outcome.value["state"] == "failed"
    assert outcome.value["error"] == "ArithmeticError: no loss"
    assert "run.log" in outcome.err
    assert "Traceback" not in outcome.err
