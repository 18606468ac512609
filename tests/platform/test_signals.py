"""The first signal asks for a stop where there is something to keep; the second ends at once."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys, time
from pathlib import Path
from dure import signals

if sys.argv[2] != "in Python":
    signals.install()
folder = Path(sys.argv[1])
(folder / signals.STOP_FILE).touch()  # of an earlier session


def say(line):
    os.write(1, f"{line}\\n".encode())  # whole, whichever thread says it


try:
    with signals.stoppable(folder, say) as file:
        say("stale" if file.exists() else "ready")
        child = os.fork() if sys.argv[2] == "forked" else 1
        if child == 0:
            os.kill(os.getpid(), 2)
            time.sleep(0.2)
            os._exit(7)
        if sys.argv[2] == "forked":
            _, status = os.waitpid(child, 0)
            say(f"child {os.waitstatus_to_exitcode(status)}")
        while not file.exists():
            time.sleep(0.01)
        say("asked")
        if sys.argv[2] == "twice":
            time.sleep(60)
        raise signals.Interrupted
except KeyboardInterrupt as end:
    say(f"{type(end).__name__} {file.exists()}")
if sys.argv[2] in ("after", "in Python"):
    say("outside")
    time.sleep(60)
"""


def _as_in_a_terminal():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it


def _started(folder, kind):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), kind],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=_as_in_a_terminal,
    )  # fmt: skip


def _line(process):
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends_at_once(number, tmp_path):
    process = _started(tmp_path, "twice")
    assert _line(process) == "ready"
    process.send_signal(number)
    assert {_line(process).partition(":")[0], _line(process).partition(":")[0]} == {"stopping", "asked"}
    process.send_signal(number)
    assert _line(process) == "KeyboardInterrupt False"
    assert process.wait(timeout=20) == 0


def test_a_closed_terminal_asks_however_often_it_says_so(tmp_path):
    process = _started(tmp_path, "twice")
    assert _line(process) == "ready"
    process.send_signal(signal.SIGHUP)
    assert {_line(process).partition(":")[0], _line(process).partition(":")[0]} == {"stopping", "asked"}
    process.send_signal(signal.SIGHUP)
    assert not select.select([process.stdout], [], [], 0.5)[0]
    process.send_signal(signal.SIGTERM)
    assert _line(process) == "KeyboardInterrupt False"
    assert process.wait(timeout=20) == 0


def test_outside_there_is_nothing_to_keep_and_one_signal_ends_at_once(tmp_path):
    process = _started(tmp_path, "after")
    assert _line(process) == "ready"
    process.send_signal(signal.SIGTERM)
    lines = [_line(process) for _ in range(4)]
    assert lines[2:] == ["Interrupted False", "outside"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_script_that_answers_no_signals_keeps_what_there_is_and_has_pythons_answers_again(number, tmp_path):
    process = _started(tmp_path, "in Python")
    assert _line(process) == "ready"
    process.send_signal(number)
    assert {_line(process).partition(":")[0], _line(process).partition(":")[0]} == {"stopping", "asked"}
    assert [_line(process), _line(process)] == ["Interrupted False", "outside"]
    process.send_signal(number)
    assert process.wait(timeout=20) == -number


def test_a_forked_process_leaves_ctrl_c_to_the_first(tmp_path):
    process = _started(tmp_path, "forked")
    assert _line(process) == "ready"
    assert _line(process) == "child 7"
    process.send_signal(signal.SIGINT)
    assert {_line(process).partition(":")[0], _line(process).partition(":")[0]} == {"stopping", "asked"}
    assert _line(process) == "Interrupted False"
    assert process.wait(timeout=20) == 0


FINALISER = """
import os, signal, sys, time
from dure import signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's "&" ignores it.
signals.install()


class Finalised:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.2)


try:
    Finalised()
    time.sleep(20)
except KeyboardInterrupt:
    print("ended")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_something_is_finalised_is_not_lost(number):
    ended = subprocess.run(
        [sys.executable, "-c", FINALISER, str(int(number))],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")


@pytest.mark.parametrize(("program", "said"), [("/bin/dure", ""), ("notebook", "KeyboardInterrupt")])
def test_ctrl_c_ends_the_program_without_a_traceback_before_it_answers_signals(program, said):
    script = f"import os, sys; sys.argv[0] = {program!r}; import dure; os.kill(os.getpid(), 2)"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr.strip().rpartition("\n")[2] == said
