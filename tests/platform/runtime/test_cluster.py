"""A cluster of one's own, and what is left of it in the process that had it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dure.events.kinds import Notice
from dure.events.stream import read_events
from dure.runs.folder import STUDY_FILE
from dure.runtime.lost import last_words

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
import os, re, sys, time
from pathlib import Path
import psutil
from dure.runs.logs import captured_output
from dure.runtime.cluster import cluster

sys.argv = ["/bin/dure", "sweep", "kobart_baseline", "--trials", "3"]
def part():
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return next((each for each in processes if re.search(os.environ["PART"], " ".join(each.cmdline()))), None)

with captured_output(Path("outputs/driver.log")), cluster(path=Path("outputs/x")):
    Path("outputs/x").mkdir(parents=True)
    Path("outputs/x/folder").write_text(os.environ["TMPDIR"])
    while part() is None:
        time.sleep(0.1)
    part().kill()
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("raylet/raylet", 1),
        ("gcs/gcs_server", 1),
        ("ray::RuntimeEnvAgent", 1),
        ("ray::DashboardAgent", 1),
        ("python -$", -signal.SIGKILL),
    ],
)
def test_a_command_that_ends_with_its_cluster_is_told_with_the_command_that_goes_on(part, code, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-"],
        input=ENDED,
        env={**os.environ, "PART": part},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = ended.stderr[ended.stderr.index("dure: ") :].splitlines()  # Ray says some things before
    assert ended.returncode == code
    assert "ended from outside" in said[0]
    assert "checkpoints of the rest, in outputs/x" in said[1]
    assert said[2] == "  try: dure sweep kobart_baseline --trials 3 --resume --output outputs/x"
    assert len(said) == 3
    (entry,) = read_events(tmp_path / "outputs" / "x" / "events.jsonl")
    assert entry.event == Notice("\n".join(said))
    # The guard clears up behind it.
    folder = Path((tmp_path / "outputs" / "x" / "folder").read_text(encoding="utf-8"))
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "then"),
    [
        (["batch", "seven"], "dure batch seven --resume --output study"),
        (["batch", "seven", "-o", "study", "--resume"], "dure batch seven -o study --resume"),
        (["unified-test", "--output", "study"], "dure unified-test --output study --resume study"),
        (["unified-train", "--resume", "study"], "dure unified-train --resume study"),
    ],
)
def test_what_goes_on_is_the_whole_command_also_where_a_step_of_it_ended(words, then, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/bin/dure", *words])
    Path("study").mkdir()
    Path("study", STUDY_FILE).touch()
    assert last_words(None, Path("study", "sweep")).endswith(f"in study\n  try: {then}")


@pytest.mark.slow
def test_a_process_answers_sigterm_itself_beside_a_cluster_and_after_it():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stdout.split() == ["answered", "answered"], ended.stderr
    assert ended.returncode == 0


TWICE = """
from dure.runtime.cluster import cluster
from tests.platform.studies.two_nodes import several_nodes

with several_nodes({"CPU": 1}) as nodes:
    with cluster(nodes.address):
        print("joined", flush=True)
    with cluster():
        print("had its own", flush=True)
    with cluster(nodes.address):
        print("joined again", flush=True)
"""


@pytest.mark.slow
def test_a_cluster_that_starts_no_actor_after_a_ray_of_ones_own_is_told_in_words():
    """Of Ray 2.60, nearly always; where it does start them, the process joins again, and nothing is to be told."""
    ended = subprocess.run(
        [sys.executable, "-c", TWICE],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    lines = ended.stdout.splitlines()
    assert lines[:2] == ["joined", "had its own"], ended.stderr
    assert lines[2:] == ["joined again"] if ended.returncode == 0 else "restart the kernel" in ended.stderr
