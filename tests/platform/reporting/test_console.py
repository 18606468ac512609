from __future__ import annotations

import contextlib
import io
import os
import pickle
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dure.events import RunProgress, RunStart, TrialStatus
from dure.reporting import console as console_module
from dure.reporting.columns import Column, FittedTable, column
from dure.reporting.console import RunConsole, StudyConsole, progress_bar
from dure.reporting.terminal import Terminal
from dure.runs.folder import RunResult

PLATFORM = Path(__file__).resolve().parents[3] / "platform"
STUDY = Path("outputs/seven/now")
SCORES = {"eval_rouge1": 0.1234, "eval_rouge2": 0.05, "eval_rougeL": float("nan"), "eval_loss": 2.5}
SUMMARY = {
    "study": "seven",
    "path": str(STUDY),
    "seconds": 61.0,
    "experiments": [{"state": "completed"}, {"state": "failed"}],
}


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def blocks(self) -> list[str]:
        """What was drawn, one text per drawing, without control sequences."""
        drawn = re.split(r"\x1b\[2K", self.getvalue())
        return [text for part in drawn if (text := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part)).strip()]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return what consoles take for the time."""
    made = Clock()
    monkeypatch.setattr(console_module, "monotonic", made)
    return made


@pytest.fixture(autouse=True)
def terminal_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def running(name: str, step: int, metrics: dict[str, float]) -> TrialStatus:
    return TrialStatus(name, "running", STUDY / name, step, 150, step / 50, float(step), metrics)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_study_without_a_terminal_prints_changes_and_validations_and_little_progress(clock: Clock) -> None:
    file = io.StringIO()
    console = StudyConsole(Terminal(file))
    console.started(
        "seven", STUDY, [TrialStatus(name, "pending", STUDY / name) for name in ("kobart", "mt5")]
    )
    for step in range(1, 31):
        clock.now += 1
        scores = SCORES if step >= 15 else {}
        console.changed(running("kobart", step, {"loss": 3.0 - step / 100, **scores}))
    console.changed(TrialStatus("mt5", "failed", STUDY / "mt5", error="UserError: [없음]"))
    console.changed(TrialStatus("kobart", "completed", STUDY, 150, 150, 3.0, 150.0, SCORES))
    console.finished(SUMMARY)

    assert file.getvalue().splitlines() == [
        "seven: 2 trials; results in outputs/seven/now",
        "kobart: running · step 1/150 · epoch 0.02 · loss 2.9900 · 0:01, 2:29 left",
        "kobart: running · step 11/150 · epoch 0.22 · loss 2.8900 · 0:11, 2:19 left",
        "kobart: running · step 15/150 · epoch 0.30 · loss 2.8500 · ROUGE-1 12.34 % · ROUGE-2 5.00 % "
        "· ROUGE-L NaN · 0:15, 2:15 left",
        "kobart: running · step 25/150 · epoch 0.50 · loss 2.7500 · 0:25, 2:05 left",
        "mt5: failed: UserError: [없음]",
        "kobart: completed · step 150/150 · epoch 3.00 · ROUGE-1 12.34 % · ROUGE-2 5.00 % · ROUGE-L NaN · 2:30",
        "seven: 1 completed, 1 failed in 1:01; results in outputs/seven/now",
    ]


def test_a_message_that_many_trials_tell_is_printed_once() -> None:
    file = io.StringIO()
    console = StudyConsole(Terminal(file))
    for message in (
        "W&B is offline [no key]",
        "W&B is offline [no key]",
        "다른 말",
        "W&B is offline [no key]",
    ):
        console.notified(message)

    assert file.getvalue().splitlines() == ["W&B is offline [no key]", "다른 말"]


def test_what_every_trial_tells_is_printed_for_the_first_one() -> None:
    file = io.StringIO()
    console = StudyConsole(Terminal(file))
    console.started("seven", STUDY, [TrialStatus(name, "pending", STUDY) for name in ("kobart", "mt5")])
    console.notified("kobart: W&B is offline")
    console.notified("mt5: W&B is offline")
    console.notified("mt5: 3 % of the inputs were cut")

    assert file.getvalue().splitlines()[1:] == [
        "kobart: W&B is offline",
        "mt5: 3 % of the inputs were cut",
    ]


def test_trials_finished_earlier_are_counted_at_the_start() -> None:
    file = io.StringIO()
    done = TrialStatus("kobart", "completed", STUDY, restored=True)
    StudyConsole(Terminal(file)).started("seven", STUDY, [done])

    assert file.getvalue() == "seven: 1 trial, 1 of them finished earlier; results in outputs/seven/now\n"


def test_the_trials_of_a_study_are_counted_whatever_its_record_groups_them_by() -> None:
    file = io.StringIO()
    console = StudyConsole(Terminal(file))
    console.started("folds", STUDY, [TrialStatus(f"kobart.fold_{n}", "completed", STUDY) for n in (1, 2)])
    folds = [{"state": "completed"}, {"state": "completed"}]
    console.finished(SUMMARY | {"study": "folds", "experiments": [{"name": "kobart", "folds": folds}]})

    assert "folds: 2 completed in" in file.getvalue()


@pytest.mark.parametrize("width", [120, 72, 40, 20, 8])
def test_the_live_table_fits_any_terminal_and_never_cuts_a_number(
    width: int, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = Screen()
    console = StudyConsole(Terminal(file))
    trials = [running("mt5_xlsum_korean_adapted", 52, {"loss": 2.345678, **SCORES})]
    trials += [TrialStatus(name, "pending", STUDY) for name in ("하나", "둘")]
    console.started("seven", STUDY, trials)
    wait_for(lambda: bool(file.blocks()))
    console.finished(SUMMARY)

    table = file.blocks()[0].split(str(STUDY), 1)[1]
    for line in table.splitlines():
        cells = sum(2 if "가" <= letter <= "힣" else 1 for letter in line.rstrip())
        assert cells <= width
    assert not re.search(r"\d…", table)
    assert ("12.34" in table) == (width >= 40)
    assert ("NaN" in table) == (width >= 120)


def test_the_live_table_counts_on_while_nothing_is_heard_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    file = Screen()
    console = StudyConsole(Terminal(file))
    console.started("seven", STUDY, [running("kobart", 50, {})])
    clock.now = 30.0
    wait_for(lambda: any("1:20" in block and "1:10" in block for block in file.blocks()))
    console.changed(TrialStatus("kobart", "failed", STUDY, error="boom"))
    console.notified("one line")
    console.finished(SUMMARY)

    text = file.getvalue()
    assert "kobart failed: boom" in text
    assert "one line" in text
    assert text.endswith("results in outputs/seven/now\n")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_the_live_table_is_drawn_at_most_twice_a_second_between_changes() -> None:
    file = Screen()
    console = StudyConsole(Terminal(file))
    console.started("seven", STUDY, [TrialStatus("kobart", "pending", STUDY)])
    for step in range(200):
        console.changed(running("kobart", step, {"loss": 1.0}))
        time.sleep(0.005)
    drawn = len([block for block in file.blocks() if "kobart" in block])
    console.finished(SUMMARY)

    assert drawn <= 5


def test_a_low_terminal_shows_the_running_trials_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "10")
    file = Screen()
    console = StudyConsole(Terminal(file))
    trials = [TrialStatus(f"done{place}", "completed", STUDY) for place in range(20)]
    console.started("seven", STUDY, [*trials, running("kobart", 3, {})])
    wait_for(lambda: any("… and 16 more" in block and "kobart" in block for block in file.blocks()))
    console.finished(SUMMARY)


def run_through(console: RunConsole, clock: Clock) -> None:
    console.started(RunStart("kobart", STUDY, {}, (), None, 150, resumed_step=10), console.notified)
    for step in range(11, 33):
        clock.now += 1
        numbers = {"loss": 3.0 - step / 100, "learning_rate": 3e-5}
        console.progressed(RunProgress("train", step, 150, step / 50, float(step), numbers))
    console.notified("3 % of the inputs were cut")
    console.notified("3 % of the inputs were cut")
    console.progressed(RunProgress("eval", 32, 150, 0.64, 32.0, {**SCORES, "eval_runtime": 2.0}))
    console.finished(RunResult("kobart", "completed", seconds=61.0))


def test_a_run_without_a_terminal_prints_validations_and_little_progress(clock: Clock) -> None:
    file = io.StringIO()
    run_through(RunConsole(Terminal(file)), clock)

    assert file.getvalue().splitlines() == [
        "kobart: 150 steps from step 10; results in outputs/seven/now",
        "step 11/150 · epoch 0.22 · loss 2.8900 · 0:11, 2:19 left",
        "step 21/150 · epoch 0.42 · loss 2.7900 · 0:21, 2:09 left",
        "step 31/150 · epoch 0.62 · loss 2.6900 · 0:31, 1:59 left",
        "3 % of the inputs were cut",
        "step 32/150 · epoch 0.64 · eval loss 2.5000 · ROUGE-1 12.34 % · ROUGE-2 5.00 % · ROUGE-L NaN "
        "· 0:32, 1:58 left",
        "kobart: completed in 1:01; results in outputs/seven/now",
    ]


def test_a_validation_without_the_usual_metrics_shows_those_that_it_has() -> None:
    file = io.StringIO()
    console = RunConsole(Terminal(file))
    console.progressed(
        RunProgress("eval", 5, 10, 1.0, 2.0, {"eval_f1_macro": 0.5, "eval_loss": 1.0, "eval_runtime": 3.0})
    )

    assert file.getvalue().startswith("step 5/10 · epoch 1.00 · eval loss 1.0000 · F1 macro 50.00 % · 0:02")


def test_the_score_before_the_first_step_is_shown_as_a_validation() -> None:
    file = io.StringIO()
    scores = {"untrained_rouge1": 0.02, "untrained_loss": 7.5, "untrained_runtime": 3.0}
    RunConsole(Terminal(file)).progressed(RunProgress("eval", 0, 150, 0.0, 2.0, scores))

    assert file.getvalue() == "step 0/150 · epoch 0.00 · eval loss 7.5000 · ROUGE-1 2.00 % · 0:02\n"


def test_a_run_that_is_only_followed_has_a_bar_too() -> None:
    file = Screen()
    console = RunConsole(Terminal(file))
    console.progressed(RunProgress("train", 75, 150, 1.5, 60.0, {"loss": 2.0}))
    console.finished(RunResult("kobart", "completed", seconds=61.0))

    assert any("75/150" in block for block in file.blocks())
    assert file.getvalue().endswith("kobart: completed in 1:01\n")


def test_the_progress_of_a_command_is_a_bar_or_a_line_at_the_end() -> None:
    plain, screen = io.StringIO(), Screen()
    with progress_bar("predicting", file=plain) as progress:
        for done in range(0, 501, 50):
            progress(done, 500)
    with progress_bar("predicting", file=screen) as progress:
        progress(250, 500)
        wait_for(lambda: any("250/500" in block for block in screen.blocks()))

    assert plain.getvalue() == "predicting: 500/500 · 0:00\n"
    assert screen.getvalue().count("\x1b[?25h") == 1


def test_a_bar_whose_end_is_not_known_pulses_and_lines_stand_above_it() -> None:
    screen = Screen()
    with progress_bar("predicting", file=screen) as progress:
        wait_for(lambda: any("predicting" in block for block in screen.blocks()))
        progress.say("a line for the user")
    assert "0/0" not in screen.getvalue()
    assert "a line for the user" in screen.getvalue()


def test_sentences_of_a_table_go_on_in_another_line_and_lose_nothing() -> None:
    sentence = "한글로 쓴 문장도 " * 20
    file = io.StringIO()
    Console(file=file, width=80).print(FittedTable([column("name", ["one"]), wrapped(sentence)]))
    lines = file.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert "".join(file.getvalue().split()).count("문장도") == 20


def wrapped(sentence: str) -> Column:
    return Column("found", [Text(sentence)], is_text=True, shortest=20, wraps_at=150)


def test_an_error_takes_the_live_block_away() -> None:
    file = Screen()
    with contextlib.suppress(RuntimeError), Terminal(file) as screen:
        StudyConsole(screen).started("seven", STUDY, [])
        raise RuntimeError

    assert file.getvalue().count("\x1b[?25h") == 1


def test_a_failed_run_leaves_the_reason_to_the_error_that_ends_it() -> None:
    file = io.StringIO()
    console = RunConsole(Terminal(file))
    console.started(RunStart("kobart", STUDY, {}, (), None, 1), console.notified)
    console.finished(RunResult("kobart", "failed", error="RuntimeError: 메모리 [부족]\n  File …"))

    assert file.getvalue().splitlines() == [
        "kobart: 1 step; results in outputs/seven/now",
        "kobart: failed; results in outputs/seven/now",
    ]


@pytest.mark.parametrize("width", [100, 50, 25])
def test_the_bar_of_a_run_fits_any_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = Screen()
    console = RunConsole(Terminal(file))
    console.started(RunStart("mt5_xlsum", STUDY, {}, (), None, 150), console.notified)
    numbers = {"loss": 2.345, "learning_rate": 3e-5}
    console.progressed(RunProgress("train", 75, 150, 1.5, 60.0, numbers))
    wait_for(lambda: any("75/150" in block or "loss" in block for block in file.blocks()) or width < 30)
    console.finished(RunResult("mt5_xlsum", "completed"))

    bars = [block for block in file.blocks() if "━" in block]
    assert all(len(line.rstrip("\r")) <= width for bar in bars for line in bar.splitlines()[-1:])
    if width == 100:
        assert re.search(
            r"mt5_xlsum +[━╸╺]+ +75/150 +epoch 1.50 +loss 2.3450 +lr 3.0e-05 +1:00 +1:00 left", bars[-1]
        )


def test_a_pickled_run_console_works_where_it_wakes_up(capfd: pytest.CaptureFixture[str]) -> None:
    copy = pickle.loads(pickle.dumps(RunConsole()))  # noqa: S301
    copy.notified("awake")

    assert capfd.readouterr().err == "awake\n"


def test_lines_reach_the_user_while_the_output_of_the_process_goes_into_a_log(tmp_path: Path) -> None:
    script = f"""
import os, pickle, sys
from dure.reporting.console import RunConsole
console = pickle.loads(pickle.dumps(RunConsole()))
log = os.open({str(tmp_path / "run.log")!r}, os.O_WRONLY | os.O_CREAT)
os.dup2(log, 1), os.dup2(log, 2)
print("noise", file=sys.stderr, flush=True)
console.notified("for the user: 두레")
"""
    environment = {**os.environ, "PYTHONPATH": str(PLATFORM), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)

    assert done.stderr.decode() == "for the user: 두레\n"
    assert (tmp_path / "run.log").read_text() == "noise\n"


def test_an_interrupted_process_gives_the_terminal_its_cursor_back() -> None:
    script = """
from pathlib import Path
from dure.reporting.console import StudyConsole
from dure.reporting.terminal import Terminal
from dure.events import TrialStatus
StudyConsole(Terminal()).started("seven", Path("x"), [TrialStatus("하나", "pending", Path("x"))])
raise KeyboardInterrupt
"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(PLATFORM)},
    )
    process.wait(timeout=20)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)

    assert "하나" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


@pytest.mark.parametrize("screen", [io.StringIO, Screen])
def test_a_terminal_that_goes_away_stops_nothing(screen: type[io.StringIO], clock: Clock) -> None:
    file = screen()
    console = RunConsole(Terminal(file))
    console.started(RunStart("kobart", STUDY, {}, (), None, 150), console.notified)
    file.close()
    clock.now = 60.0
    console.progressed(RunProgress("train", 75, 150, 1.5, 60.0, {"loss": 1.0}))
    console.progressed(RunProgress("eval", 75, 150, 1.5, 60.0, SCORES))
    console.finished(RunResult("kobart", "completed"))


def test_a_stream_without_hangul_gets_escapes_instead_of_an_error() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    RunConsole(Terminal(file)).notified("두레")
    file.flush()

    assert raw.getvalue() == b"\\ub450\\ub808\n"
