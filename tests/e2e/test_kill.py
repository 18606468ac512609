"""`kill -9` in the middle of a batch: nothing is left running, nothing finished is lost, the rest goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dure.files import read_json_lines
from dure.runs.checkpoints import last_checkpoint

REPOSITORY = Path(__file__).parents[2]
NAMES = ("eenzeenee_t5", "kobart_baseline", "high_learning_rate")
STEPS = 120


def _wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_batch_leaves_no_process_and_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "study"
    profile = tmp_path / "one_at_a_time.yaml"
    profile.write_text("name: one_at_a_time\ndevice: cpu\nmax_concurrent_trials: 1\n", encoding="utf-8")
    command = [
        sys.executable, "-c", "from dure.cli import main; main()", "batch", "seven", "--rehearse",
        "--only", ",".join(NAMES), "--profile", str(profile), "--output", str(folder), "--json",
        "wandb.enabled=false", "generation.num_beams=1", "training.gradient_accumulation_steps=1",
        "training.batch_size=4", "training.early_stopping_patience=100",
        "rehearsal.hidden_size=32", "rehearsal.num_layers=1", "rehearsal.max_train_rows=200",
        "rehearsal.max_dev_rows=4", "rehearsal.num_evaluations=12", f"rehearsal.max_steps={STEPS}",
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "platform"), str(REPOSITORY)]),
        "DURE_CACHE": str(tmp_path / "cache"),
    }

    def seen() -> tuple[list[Path], list[Path]]:
        """Which have ended, and which have a checkpoint: the longest is trained first, whatever its place in the list."""
        done = [folder / name for name in NAMES if (folder / name / "result.json").exists()]
        return done, [
            folder / name for name in NAMES if folder / name not in done and last_checkpoint(folder / name)
        ]

    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        _wait_for(lambda: all(seen()), 300)
        started = psutil.Process(driver.pid).children(recursive=True)
        assert any("raylet" in process.name() for process in started)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []

    (finished,), (cut,) = seen()
    (waiting,) = {folder / name for name in NAMES} - {finished, cut}
    assert not (waiting / "metrics.jsonl").exists()
    before = (finished / "result.json").stat().st_mtime_ns
    step = int(last_checkpoint(cut).name.rpartition("-")[2])
    kept = [record for record in read_json_lines(cut / "metrics.jsonl") if record["step"] <= step]
    assert 0 < step < STEPS

    again = subprocess.run(
        [*command, "--resume"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert [entry["state"] for entry in summary["experiments"]] == ["completed"] * 3
    assert (finished / "result.json").stat().st_mtime_ns == before
    # What was recorded up to the checkpoint stands there with the very times of the first session.
    records = read_json_lines(cut / "metrics.jsonl")
    assert records[: len(kept)] == kept
    steps = [record["step"] for record in records if record["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
