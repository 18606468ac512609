"""A table that workers of a cluster predict together."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dure.family.predicted_blocks import BLOCK_ROWS
from tests.benchmarks.large_table import make_run, write_table

from .conftest import environment, program


@pytest.mark.slow
def test_workers_that_are_killed_and_go_on_write_the_bytes_of_one_process(tmp_path):
    make_run(tmp_path)
    write_table(tmp_path / "table.csv", 6 * BLOCK_ROWS + 100)
    predict = ["predict", "run", "table.csv", "--profile", "cpu"]
    one = program(*predict, "-o", "one.csv", cwd=tmp_path)
    assert one.code == 0, one.err
    many = [*predict, "-o", "many.csv", "--workers", "2"]
    too_many = program(*predict, "-o", "more.csv", "--workers", "999", cwd=tmp_path)
    assert too_many.code == 2, too_many.err
    assert "--workers: 999 workers need 1 CPU each" in too_many.err
    parts = tmp_path / "many.csv.parts"
    with subprocess.Popen(
        [sys.executable, "-m", "dure", *many], cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    ) as killed:
        while killed.poll() is None and not list(parts.glob("0-*.jsonl")):
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, "it was done before it could be killed"
    kept = {file.name: file.stat().st_mtime_ns for file in parts.glob("0-*.jsonl")}
    assert kept
    assert not Path(tmp_path / "many.csv").exists()
    gone_on = program(*many, "--resume", cwd=tmp_path)
    assert gone_on.code == 0, gone_on.err
    assert "rows were predicted before" in gone_on.err
    assert gone_on.out.count("\n") == 1
    assert (tmp_path / "many.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert not parts.exists()
