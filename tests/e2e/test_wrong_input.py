"""Wrong input: a short message that names the place and the remedy, exit 2, no traceback, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from . import mistakes
from .conftest import TINY, call, environment, program
from .mistaken_files import BROKEN_RUNS, BROKEN_SWEEPS, make_files

BEFORE_ANYTHING_STARTS = {
    f"{kind}, {name}": row
    for kind, rows in {
        "config": mistakes.CONFIG,
        "data": mistakes.DATA,
        "checkpoints": mistakes.CHECKPOINTS,
        "options": mistakes.OPTIONS,
        "environment": mistakes.ENVIRONMENT,
    }.items()
    for name, row in rows.items()
}
SECONDS = 15.0
"""Most computing time of a mistake, the first import of the libraries included."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run of the classifier."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert call(*mistakes.CLASSIFY.split(), "--output", folder).code == 0
    return folder


@pytest.fixture(scope="session")
def planned_sweep():
    """What ``study.yaml`` of a sweep holds."""
    return call(*mistakes.SWEEP.split()).out.split("---\n")[0]


@pytest.fixture
def wrong(tmp_path, request):
    """Make the files that a command names, in the working folder; ``RUN`` is a finished run."""

    def make(command: str) -> list[str]:
        make_files(tmp_path)
        words = command.split()
        for word in words:
            if word == "RUN":
                (tmp_path / word).symlink_to(request.getfixturevalue("finished"))
            elif word in BROKEN_RUNS:
                shutil.copytree(request.getfixturevalue("finished"), tmp_path / word)
                BROKEN_RUNS[word](tmp_path / word)
            elif word in BROKEN_SWEEPS:
                study, summary = BROKEN_SWEEPS[word]
                (tmp_path / word).mkdir()
                (tmp_path / word / "study.yaml").write_text(study or request.getfixturevalue("planned_sweep"))
                if summary is not None:
                    (tmp_path / word / "experiment_summary.json").write_text(summary)
        return words

    return make


def check_message(outcome, *said):
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert "defect" not in outcome.err
    message = outcome.err[outcome.err.index("dure: ") :]
    assert len(message.splitlines()) <= 3, message
    for text in said:
        assert text in message


def test_the_table_has_enough_distinct_mistakes():
    rows = [
        *BEFORE_ANYTHING_STARTS.values(),
        *mistakes.FOUND_BY_THE_RUN.values(),
        *mistakes.VALIDATED.values(),
    ]
    assert len({command for command, _, _ in rows}) == len(rows) >= 180


@pytest.mark.parametrize("case", BEFORE_ANYTHING_STARTS)
def test_wrong_input_is_named_before_anything_starts(case, wrong, tmp_path):
    command, place, remedy = BEFORE_ANYTHING_STARTS[case]
    words = wrong(command)
    before, began = sorted(tmp_path.rglob("*")), time.process_time()
    check_message(call(*words), place, remedy)
    assert time.process_time() - began < SECONDS
    # An address is looked for by the run, whose folder says so.
    if not case.startswith(
        ("environment, nobody", "environment, address", "environment, database", "options, two metrics")
    ):
        assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize("case", mistakes.FOUND_BY_THE_RUN)
def test_wrong_input_that_a_run_finds_is_named_and_recorded(case, wrong, tmp_path):
    command, place, remedy = mistakes.FOUND_BY_THE_RUN[case]
    outcome = call(*wrong(command), "--output", "run", "--json")
    check_message(outcome, place, remedy)
    reason = outcome.err[outcome.err.index("dure: ") + len("dure: ") :].splitlines()[0]
    assert outcome.err.count(reason) == 1
    assert '"failed"' in (tmp_path / "run" / "result.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", mistakes.VALIDATED)
def test_what_validate_finds_stands_in_its_table_with_the_remedy(case, wrong):
    command, place, remedy = mistakes.VALIDATED[case]
    outcome = call(*wrong(command))
    assert outcome.code == 2
    assert place in outcome.out
    assert remedy in outcome.out
    assert "Traceback" not in outcome.err


def test_code_in_a_pickle_is_not_executed(wrong, tmp_path):
    call(*wrong("crossover code_epoch --profile cpu"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("flags", [["--debug", "list", "x"], ["list", "x", "--debug"], ["-v", "list", "--debug", "x"]])  # fmt: skip
def test_debug_shows_the_traceback_wherever_it_stands(flags):
    outcome = call(*flags)
    assert outcome.code == 2
    assert "Traceback" in outcome.err


# environment variables and the process itself


@pytest.mark.parametrize("folder", ["good.csv/cache", "/proc/dure"])
def test_a_cache_that_cannot_be_written_is_named(monkeypatch, wrong, folder):
    words = wrong(mistakes.TRAIN)
    monkeypatch.setenv("DURE_CACHE", folder)
    check_message(call(*words), "DURE_CACHE", folder)


def test_a_home_that_is_not_there_is_named_with_what_to_set(monkeypatch, wrong):
    words = wrong(mistakes.TRAIN)
    monkeypatch.delenv("DURE_CACHE")
    monkeypatch.setenv("HOME", "/proc/nobody")
    check_message(call(*words), "DURE_CACHE", "/proc/nobody/.cache/dure")


def test_samples_of_the_environment_are_named(monkeypatch):
    monkeypatch.setenv("SAMPLES", "many")
    check_message(call("unified-test", "--dry-run"), "SAMPLES", "--samples")


def test_a_terminal_without_utf8_gets_a_message_and_json(tmp_path):
    outcome = program("train", "없는것", cwd=tmp_path, PYTHONIOENCODING="ascii")
    check_message(outcome, "\\uc5c6", "kobart_baseline")
    (tmp_path / "search_spaces" / "experiments").mkdir(parents=True)
    mine = "extends: transfer_bert\nexperiment: {name: mine, description: 내 실험}\n"
    (tmp_path / "search_spaces" / "experiments" / "mine.yaml").write_text(mine, encoding="utf-8")
    outcome = program("list", "--json", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert outcome.value["experiments"]["mine"] == "내 실험"


@pytest.mark.parametrize(
    "command",
    ["clean", "runs", "report", "compare", "stop", "sample -o", "train transfer_bert -o", "convert"],
)
def test_an_empty_word_is_not_taken_for_the_working_folder(command, tmp_path):
    check_message(call(*command.split(), ""), "an empty word is given", "a variable of the shell")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream_is_no_defect(closed, tmp_path):
    command = f"$0 -m dure runs . {closed}"
    ended = subprocess.run(
        ["bash", "-c", command, sys.executable], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_working_folder_that_is_gone_is_told(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"rmdir {gone}; exec $0 -m dure list"
    ended = subprocess.run(
        ["bash", "-c", command, sys.executable], cwd=gone, env=environment(), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert ended.returncode == 2
    assert "working folder" in ended.stderr
    assert "Traceback" not in ended.stderr


# folders of runs


def test_predictions_that_cannot_be_written_are_refused_before_predicting(finished, wrong):
    for output in (".", "good.csv/deep/o.csv"):
        words = wrong("predict") if output == "." else ["predict"]
        outcome = call(*words, finished, "reviews.csv", "-o", output, "--profile", "cpu")
        check_message(outcome, f"--output {output}")
        assert "predicting" not in outcome.err


def test_a_study_folder_is_no_run_and_names_its_experiments(finished):
    check_message(
        call("predict", finished.parent, "x.csv", "-o", "o.csv"), str(finished.parent), finished.name
    )


def test_a_run_that_fails_by_itself_exits_1_and_its_record_is_the_json(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from trainables.summarization import Summarization\n"
        "class Broken(Summarization):\n"
        "    def objective(self, model, train):\n"
        "        raise ArithmeticError('no loss')\n",
        encoding="utf-8",
    )
    train = ("train", "kobart_baseline", "--rehearse", *TINY)
    outcome = call(*train, "family=broken", "--output", "run", "--json")
    assert outcome.code == 1
    assert outcome.value["state"] == "failed"
    assert outcome.value["error"] == "ArithmeticError: no loss"
    assert "run.log" in outcome.err
    assert "Traceback" not in outcome.err


def test_names_that_python_cannot_read_by_its_locale_are_told_with_the_remedy(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    outcome = program("runs", "한글", cwd=tmp_path, **ascii_only)
    assert (outcome.code, outcome.out) == (2, "")
    assert "are not ascii" in outcome.err
    assert "PYTHONUTF8=1" in outcome.err
    assert program("runs", "--json", cwd=tmp_path, **ascii_only).code == 0
