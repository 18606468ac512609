"""Whatever words follow a verb, and whatever stands in the records of a run: a result, or an error in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dure.errors import UserError
from dure.files import append_json_line, read_json, read_json_lines
from dure.runs.folder import RunFolder, RunResult, StageFolder

from .conftest import call

DRY = (
    "train",
    "batch",
    "sweep",
    "progressive",
    "crossval",
    "unified-test",
    "unified-train",
    "unified-test-v1",
    "train-local",
)
"""Verbs that only say what they would do."""
READING = ("schema", "score", "stop", "sweet-spot", "crossover", "predict")
"""Verbs that look before they do anything, and find nothing in an empty folder."""
ODD = (
    *("", " ", "0", "1", "-1", "5", "1e9", "nan", "inf", "1e400", "9" * 30, "0.5", "110%", "1/3", "x", "가", "각", "\u2028"),
    *("transfer_bert", "seven", "learning_rate", "optimizer", "cpu", "nope.yaml", "a/b", "..", ".", "/", "/proc/none", "~"),
    *("training.epochs=2", "training.epochs=", "=", "a=b", "training.learning_rate=1e-4,1e-3", "lora=[", "family=os"),
    *("eval_loss", "eval_loss:min", "eval_loss:", ":", "1,2", ",", "grid", "tpe", "asha", "tiny", "--", "-", "-1", "--help"),
    *("training.epochs=[1,2]", "task={a: 1}", "data.fold={number: 1, of: 2}", "x" * 3000, "\udcff", "training.epochs=1,1"),
)  # fmt: skip


def options() -> list[str]:
    """Every option of every verb, by its real name."""
    import typer

    from dure.cli import app

    call("list", "extra")  # registers the verbs
    command = typer.main.get_command(app)
    return sorted(
        {
            name
            for verb in command.commands.values()
            for each in verb.params
            for name in each.opts
            if name[0] == "-"
        }
    )


word = st.deferred(
    lambda: st.sampled_from(options()) | st.sampled_from(ODD) | st.sampled_from(ODD) | st.text(max_size=8)
)


def check_words(verb: str, words: list[str]) -> None:
    outcome = call(verb, *(["--dry-run"] if verb in DRY else []), *words)
    assert outcome.code in (0, 2), (verb, words, outcome.err)
    assert "Traceback" not in outcome.err or "--debug" in words
    assert outcome.code == 0 or outcome.err.count("dure: ") >= 1


RECORD = {"kind": "eval", "step": 4, "epoch": 1.0, "eval_loss": 0.5, "eval_f1[긍정]": 1.0, "note": "a\u2028b"}
RESULT = RunResult(
    "a", "completed", {"eval_loss": 0.5, "num": 3, "device": "씨피유"}, "checkpoint-4", "final_model", 1.5
)
ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """A good file with bytes flipped, cut, deleted or inserted."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(made)))
        match draw(st.sampled_from(("flip", "cut", "delete", "insert"))):
            case "flip" if place < len(made):
                made[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del made[place:]
            case "delete":
                del made[place : place + draw(st.integers(0, 20))]
            case _:
                made[place:place] = draw(
                    st.sampled_from((b"\n", b"\0", b"\xff", b"{", b"[" * 2000, b"NaN", b"9" * 5000, b'"'))
                )
    return bytes(made)


def check_records(folder: Path, draw) -> None:
    """Every reader of records takes a damaged file, or names it."""
    lines = b"".join(json.dumps(RECORD, ensure_ascii=False).encode() + b"\n" for _ in range(3))
    whole = json.dumps(RESULT.as_dict(), ensure_ascii=False).encode()
    other = st.dictionaries(st.sampled_from(sorted(RESULT.as_dict())), ODD_VALUES).map(
        lambda value: json.dumps(value).encode()
    )
    (folder / "metrics.jsonl").write_bytes(draw(damaged(lines)))
    (folder / "result.json").write_bytes(draw(damaged(whole) | other | st.binary(max_size=50)))
    (folder / "training_metrics.json").write_bytes(draw(damaged(whole) | st.binary(max_size=50)))
    readers = {
        "metrics.jsonl": lambda: read_json_lines(folder / "metrics.jsonl"),
        "result.json": RunFolder(folder).read_result,
        "training_metrics.json": StageFolder(folder).read_training_metrics,
    }
    for name, read in readers.items():
        problem = ""
        try:
            value = read()
        except UserError as error:
            problem = str(error)
        if problem:
            assert str(folder / name) in problem
        else:
            assert isinstance(value, (list, dict, RunResult))


quick = settings(max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
thorough = settings(derandomize=False, max_examples=3000, suppress_health_check=list(HealthCheck))


@quick
@given(verb=st.sampled_from(DRY + READING), words=st.lists(word, max_size=6))
def test_any_words_after_a_verb_exit_0_or_2(verb, words):
    check_words(verb, words)


@quick
@given(data=st.data())
def test_any_record_is_read_or_named(tmp_path, data):
    check_records(tmp_path, data.draw)


@pytest.mark.slow
@thorough
@given(verb=st.sampled_from(DRY + READING), words=st.lists(word, max_size=8))
def test_many_words_after_a_verb_exit_0_or_2(verb, words):
    check_words(verb, words)


@pytest.mark.slow
@thorough
@given(data=st.data())
def test_many_records_are_read_or_named(tmp_path, data):
    check_records(tmp_path, data.draw)


def test_a_line_torn_within_a_character_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_json_line(file, RECORD)
    append_json_line(file, RECORD)
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex("긍".encode()) + 1])
    assert read_json_lines(file) == [RECORD]


def test_a_line_separator_within_a_text_does_not_cut_its_record(tmp_path):
    append_json_line(tmp_path / "metrics.jsonl", RECORD)
    append_json_line(tmp_path / "metrics.jsonl", {"kind": "train"})
    assert read_json_lines(tmp_path / "metrics.jsonl") == [RECORD, {"kind": "train"}]


def test_a_result_comes_back_as_it_was_written(tmp_path):
    RunFolder(tmp_path).write_result(RESULT)
    assert RunFolder(tmp_path).read_result() == RESULT
    assert read_json(tmp_path / "result.json", what="result") == RESULT.as_dict()
