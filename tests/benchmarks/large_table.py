"""A large table through `dure predict`: one process, and two workers that are killed and go on; bytes, time, memory.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.large_table [--rows 1000000] [--less 100000] [--workers 2]

The model is a rehearsed BERT. Memory is sampled every half second over a command and all processes below it: what is
theirs alone (anonymous pages), and Ray's shared memory. Mapped files, which the system takes back when it needs room,
are not in it. A table of ``--less`` rows shows whether it grows with the table.
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from dure.family.predicted_blocks import BLOCK_ROWS

_WORDS = [
    "배송이",
    "포장이",
    "색상은",
    "품질은",
    "가격도",
    "맛도",
    "연기만",
    "음악이",
    "화면은",
    "대사도",
    "정말",
    "아주",
    "조금",
    "별로",
    "매우",
    "좋아요",
    "나빠요",
    "빨라요",
    "느려요",
    "예뻐요",
    "지루해요",
    "재미있어요",
    "다시",
    "살래요",
]
_SECONDS = 0.5


@dataclass(frozen=True)
class Measured:
    """What a command took: wall and CPU seconds, and the most MB of it and all processes below it."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    killed: bool = False


def write_table(path: Path, num_rows: int, *, labels: bool = False) -> None:
    """Write a table of short texts with ids; the same ones every time."""
    draw = random.Random(7)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", *(["label"] if labels else [])])
        for row in range(num_rows):
            text = " ".join(draw.choices(_WORDS, k=draw.randint(3, 14)))
            writer.writerow([f"r{row}", text, *([str(int("좋" in text))] if labels else [])])


def make_run(folder: Path, hidden_size: int) -> Path:
    """Train the model that predicts."""
    write_table(folder / "train.csv", 2000, labels=True)
    sizes = {
        "hidden_size": hidden_size,
        "num_layers": 2,
        "num_heads": 2,
        "max_steps": 20,
        "num_evaluations": 1,
    }
    words = ["data.train=train.csv", "data.dev=10%", "training.eval_batch_size=64"]
    words += [f"rehearsal.{name}={value}" for name, value in sizes.items()]
    command = [sys.executable, "-m", "dure", "train", "transfer_bert", "--rehearse", *words]
    subprocess.run([*command, "--profile", "cpu", "-o", "run"], cwd=folder, check=True, capture_output=True)
    return folder / "run"


def measured(
    words: Sequence[str], cwd: Path, kill_when: Callable[[], bool] = lambda: False, **more: str
) -> Measured:
    """Run a command of dure with its memory watched; it is killed as soon as ``kill_when`` says so."""
    began, peak, cpu, killed = time.monotonic(), 0.0, {}, False
    with subprocess.Popen(
        [sys.executable, "-m", "dure", *words], cwd=cwd, stdout=subprocess.DEVNULL, env={**os.environ, **more}
    ) as process:
        top = psutil.Process(process.pid)
        while process.poll() is None:
            now = 0.0
            for each in (top, *top.children(recursive=True)):
                try:
                    times = each.cpu_times()
                    cpu[each.pid] = times.user + times.system
                    now += _own_mb(each.pid)
                except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                    continue
            peak = max(peak, now)
            if not killed and kill_when():
                process.kill()
                killed = True
            time.sleep(_SECONDS)
    if process.returncode and not killed:
        raise SystemExit(f"dure {' '.join(words)} ended with {process.returncode}")
    return Measured(time.monotonic() - began, sum(cpu.values()), peak, killed)


def _own_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return sum(int(value.split()[0]) for value in fields.values()) / 1024


def measure(folder: Path, num_rows: int, less: int, workers: int, hidden_size: int) -> dict[str, Measured]:
    """Predict a table in one process, and with workers that are killed at a third and go on; the files must be equal.

    Raises:
        SystemExit: They are not, or a command failed.
    """
    run = str(make_run(folder, hidden_size))
    write_table(folder / "less.csv", less)
    write_table(folder / "all.csv", num_rows)
    predict = ["predict", run]
    spread = ["--workers", str(workers), "--profile", "cpu"]
    found = {
        "one process, fewer rows": measured(
            [*predict, "less.csv", "-o", "less_one.csv", "--profile", "cpu"], folder
        ),
        "one process": measured([*predict, "all.csv", "-o", "one.csv", "--profile", "cpu"], folder),
    }
    shutil.rmtree(folder / "cache")
    found["workers, fewer rows"] = measured([*predict, "less.csv", "-o", "less_two.csv", *spread], folder)
    enough = num_rows // BLOCK_ROWS // 3
    parts = folder / "two.csv.parts"
    found["workers, killed"] = measured(
        [*predict, "all.csv", "-o", "two.csv", *spread],
        folder,
        lambda: len(list(parts.glob("0-*.jsonl"))) > enough,
    )
    if not found["workers, killed"].killed:
        raise SystemExit("it was done before it could be killed")
    kept = {file.name: file.stat().st_mtime_ns for file in parts.glob("0-*.jsonl")}
    print(f"killed with {len(kept):,} blocks of {-(-num_rows // BLOCK_ROWS):,}", file=sys.stderr)
    found["workers, gone on"] = measured([*predict, "all.csv", "-o", "two.csv", *spread, "--resume"], folder)
    for one, other in (("less_one.csv", "less_two.csv"), ("one.csv", "two.csv")):
        if not filecmp.cmp(folder / one, folder / other, shallow=False):
            raise SystemExit(f"{one} and {other} differ")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways and print table and JSON."""
    parser = argparse.ArgumentParser(description="A large table through dure predict")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--less", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hidden-size", type=int, default=64)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as top:
        os.environ["DURE_CACHE"] = f"{top}/cache"
        found = measure(Path(top), options.rows, options.less, options.workers, options.hidden_size)
    load = os.getloadavg()[0]
    table = Table(
        title=f"{options.rows:,} rows ({options.less:,} fewer), all files byte-equal, load {load:.1f}"
    )
    for heading in ("way", "wall s", "CPU s", "peak MB"):
        table.add_column(heading)
    for way, each in found.items():
        table.add_row(way, f"{each.seconds:.0f}", f"{each.cpu_seconds:.0f}", f"{each.peak_mb:.0f}")
    Console(stderr=True).print(table)
    ways = {way: vars(each) for way, each in found.items()}
    print(
        json.dumps(
            {
                "benchmark": "large_table",
                "rows": options.rows,
                "less": options.less,
                "load": load,
                "ways": ways,
            }
        )
    )


if __name__ == "__main__":
    main()
