"""The program as a process: pipes that hold results only, a batch on a real Ray, and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from .conftest import TINY, call, environment, program


@pytest.mark.slow
def test_a_batch_prints_one_json_object_and_tells_its_progress(tmp_path):
    outcome = program("batch", "seven", "--only", "5", "--rehearse", "--json", "--output", "study", *TINY,
                      cwd=tmp_path)  # fmt: skip
    assert outcome.code == 0, outcome.err
    summary = outcome.value
    assert [(each["name"], each["state"]) for each in summary["experiments"]] == [
        ("kobart_baseline", "completed"),
    ]
    assert "seven: 1 trial; results in study" in outcome.err
    assert "seven: 1 completed in" in outcome.err
    assert outcome.err.splitlines()[-1] == 'next: dure predict study/kobart_baseline --text "…"'
    for noise in ("Traceback", "ray-project", "it/s]", "Warning", "INFO"):
        assert noise not in outcome.err
    table = (tmp_path / "study" / "experiment_summary.txt").read_text(encoding="utf-8")
    assert "kobart_baseline" in table

    # Finished experiments are not run again, and need no Ray.
    again = call("batch", "seven", "--only", "5", "--rehearse", "--output", "study", "--resume", *TINY)
    assert again.code == 0, again.err
    assert "finished earlier" in again.err
    assert "kobart_baseline" in again.out


def test_a_full_disk_is_told_and_is_no_mistake_of_the_command():
    command = [sys.executable, "-m", "dure", "list"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("dure: a disk that is written to is full\n  try: make room there")


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_130_and_resume_completes_it(tmp_path):
    arguments = ["train", "kobart_baseline", "--rehearse", "--output", "run", *TINY, "rehearsal.max_steps=90",
                 "rehearsal.num_evaluations=30", "training.epochs=500", "training.early_stopping_patience=200"]  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "dure", *arguments],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would whatever that starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run").glob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    assert not psutil.pid_exists(running.pid)

    resumed = program(*arguments, "--resume", "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert "90 steps from step" in resumed.err
    assert resumed.value["state"] == "completed"
