"""A cluster of one's own, and what is left of it in the process that had it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys

def answer(number, frame):
    print("answered", flush=True)

signal.signal(signal.SIGTERM, answer)
from dure.runtime.cluster import cluster
with cluster():
    os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
"""


ENDED = """
import os, signal, sys, time
from pathlib import Path
import psutil
from dure.runtime.cluster import cluster

sys.argv = ["/bin/dure", "sweep", "kobart_baseline", "--trials", "3"]
with cluster(path=Path("outputs/x"), notify=lambda line: print(line, flush=True)) as own:
    print(os.environ["TMPDIR"], flush=True)
    (part,) = [each for each in psutil.Process().children() if each.name().startswith(PART)]
    part.kill()
    time.sleep(60)
print("went on")
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_cluster_that_is_ended_from_outside_is_told_with_the_command_that_goes_on(part):
    ended = subprocess.run(
        [sys.executable, "-c", ENDED.replace("PART", repr(part))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    folder = ended.stdout.splitlines()[0]
    said = ended.stdout[ended.stdout.index("dure: ") :].splitlines()  # Ray says some things before
    assert ended.returncode == 1
    assert "Ray was ended from outside" in said[0]
    assert "checkpoints of the rest, in outputs/x" in said[1]
    assert said[2] == "  try: dure sweep kobart_baseline --trials 3 --resume --output outputs/x"
    assert len(said) == 3
    # The guard clears up behind it.
    deadline = time.monotonic() + 60
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(folder).exists()


@pytest.mark.slow
def test_a_process_answers_sigterm_itself_beside_a_cluster_and_after_it():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stdout.split() == ["answered", "answered"], ended.stderr
    assert ended.returncode == 0
