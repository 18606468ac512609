"""Whatever ends a command beside its cluster, the guard has the last word, and has it once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dure.events.kinds import Notice
from dure.events.stream import read_events

SCRIPT = """
import os, signal, sys
from pathlib import Path
import psutil
from dure.runs.logs import captured_output
from dure.runtime.guard import Guard

folder = Path(sys.argv[1])
with captured_output(folder / "driver.log"):
    guard = Guard("no-cluster", "dure: ended\\n  try: again", folder)
    print("of a library", flush=True)
    exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("os._exit(1)", 1, "dure: ended\n  try: again"),  # as Ray does, in C++
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "dure: ended\n  try: again"),
        ("guard.speak('dure: its raylet is gone'); os._exit(1)", 1, "dure: its raylet is gone"),
        ("guard.dismiss()", 0, ""),
        ("psutil.Process().children()[0].kill(); guard.dismiss()", 0, ""),
    ],
)
def test_the_last_word_reaches_the_user_and_the_stream_also_while_output_is_captured(
    end, code, said, tmp_path
):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), end],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr.strip(), ended.stdout) == (code, said, "")
    assert [entry.event for entry in read_events(tmp_path / "events.jsonl")] == [Notice(said)] * bool(said)
    assert (tmp_path / "driver.log").read_text(encoding="utf-8") == "of a library\n"
