"""A sweep that draws its points, killed and stopped on its way: it tries and stops what one left alone does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from dure.files import read_json, read_json_lines

from .conftest import TINY, environment

TRIALS = 13
"""TPE draws its first ten at random, and goes by results from then on."""
PROFILE = "name: one\ndevice: cpu\nmax_concurrent_trials: 1\n"
MORE = (
    *TINY,
    "rehearsal.max_steps=36",
    "rehearsal.num_evaluations=9",
    "rehearsal.max_train_rows=96",
    "rehearsal.max_dev_rows=20",
    "training.batch_size=4",
    "training.epochs=2",
    "training.log_every=1",
    "training.early_stopping_patience=100",
)


def is_under_way(trial):
    """Whether a trial is between two of its validations."""
    steps = [record["step"] for record in read_json_lines(trial / "metrics.jsonl")]
    return not (trial / "result.json").exists() and bool(steps) and steps[-1] >= 2


def session(arguments, folder, *, number=None, during=None, code=0):
    """Run the program, send it a signal when a trial is under way, and return its screen."""
    running = subprocess.Popen(
        [sys.executable, "-m", "dure", *map(str, arguments), "--output", str(folder)],
        cwd=folder.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if number is not None:
        deadline = time.monotonic() + 240
        while not is_under_way(folder / during) and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(number)
    _, err = running.communicate(timeout=300)
    assert running.returncode == code, err
    return err


def left_by(folder):
    """Return the points, what became of them, and every number of their records but times."""
    summary = read_json(folder / "experiment_summary.json", what="summary")
    records = {
        name: [
            {key: value for key, value in record.items() if not key.endswith(("seconds", "_runtime", "_per_second"))}
            for record in read_json_lines(folder / name / "metrics.jsonl")
        ]
        for name in summary["values"]
    }  # fmt: skip
    states = {entry["name"]: entry["state"] for entry in summary["experiments"]}
    return summary["values"], states, summary["best"], records


@pytest.mark.slow
@pytest.mark.parametrize("stopper", ["asha", "median"])
def test_a_sweep_that_draws_goes_on_exactly_after_a_kill_and_a_stop(stopper, tmp_path):
    (tmp_path / "one.yaml").write_text(PROFILE, encoding="utf-8")
    plan = ["--sampler", "tpe", "--scheduler", stopper, "--trials", TRIALS, "--metric", "eval_loss:min"]
    arguments = ["sweep", "transfer_bert", "--rehearse", "--profile", "one.yaml", *plan, *MORE]
    cut, whole = tmp_path / "cut", tmp_path / "whole"

    session(arguments, cut, number=signal.SIGKILL, during="trial_002", code=-signal.SIGKILL)
    again = [*arguments[:4], "one.yaml", *plan[:6], *MORE, "--resume"]
    session(again, cut, number=signal.SIGTERM, during="trial_011", code=130)
    before = json.loads((cut / "experiment_summary.json").read_text(encoding="utf-8"))
    assert len(before["values"]) == 12, "nothing was drawn after the stop was asked for"
    session(again, cut)
    session(arguments, whole)

    points, states, best, records = left_by(whole)
    assert len(points) == TRIALS
    assert "stopped" in [states[f"trial_{place:03d}"] for place in range(2, TRIALS)]
    found = left_by(cut)
    assert found[0] == points
    assert found[1] == states
    assert found[2] == best
    assert found[3] == records
