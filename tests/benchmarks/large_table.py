"""A large table through `dure predict`: one process, and two workers that are killed and go on; bytes, time, memory.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.large_table [--rows 1000000] [--less 100000] [--keep DIR]

The model is a rehearsed BERT. Memory is sampled every half second over a command and all processes below it: anonymous
pages and Ray's shared memory, a page that several processes share counted once in all (PSS). Mapped files, which the
system takes back when it needs room, are not in it. A table of ``--less`` rows shows whether it grows with the table.
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import json
import math
import os
import random
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


def make_run(folder: Path) -> None:
    """Train the model that predicts."""
    write_table(folder / "train.csv", 2000, labels=True)
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "max_steps": 20, "num_evaluations": 1}
    words = ["data.train=train.csv", "data.dev=10%", "training.eval_batch_size=256"]
    words += [f"rehearsal.{name}={value}" for name, value in sizes.items()]
    command = [sys.executable, "-m", "dure", "train", "transfer_bert", "--rehearse", *words]
    subprocess.run([*command, "--profile", "cpu", "-o", "run"], cwd=folder, check=True, capture_output=True)


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
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return sum(int(value.split()[0]) for value in fields.values()) / 1024


def predict(folder: Path, rows: str, output: str, *options: str, kill_at: float | None = None) -> Measured:
    """Predict one of the tables; with ``kill_at``, until that share of its blocks is done."""
    parts = folder / f"{output}.parts"
    with (folder / f"{rows}.csv").open(encoding="utf-8") as file:
        enough = math.inf if kill_at is None else kill_at * (sum(1 for _ in file) // BLOCK_ROWS)
    words = ["predict", "run", f"{rows}.csv", "-o", output, "--profile", "cpu", *options]
    took = measured(words, folder, lambda: len(list(parts.glob("0-*.jsonl"))) > enough)
    if took.killed != (kill_at is not None):
        raise SystemExit(f"{output}: it was done before it could be killed")
    return took


def require_equal(folder: Path, one: str, other: str) -> None:
    """Compare two outputs byte by byte.

    Raises:
        SystemExit: They differ.
    """
    if not filecmp.cmp(folder / one, folder / other, shallow=False):
        raise SystemExit(f"{one} and {other} differ")


def steps(folder: Path, workers: int) -> dict[str, Callable[[], Measured]]:
    """Return every way by its name, in the order in which they are measured."""
    spread = ("--workers", str(workers))
    return {
        "one process, fewer rows": lambda: predict(folder, "less", "less_one.csv"),
        "one process": lambda: predict(folder, "all", "one.csv"),
        f"{workers} workers, fewer rows": lambda: predict(folder, "less", "less_many.csv", *spread),
        f"{workers} workers, killed at a third": lambda: predict(
            folder, "all", "many.csv", *spread, kill_at=1 / 3
        ),
        f"{workers} workers, gone on": lambda: predict(folder, "all", "many.csv", *spread, "--resume"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways and print table and JSON."""
    parser = argparse.ArgumentParser(description="A large table through dure predict")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--less", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="Folder that keeps what was measured; the same command goes on there"
    )
    parser.add_argument("--ways", type=int, help="How many ways are measured before it ends")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as top:
        folder = options.keep or Path(top)
        folder.mkdir(exist_ok=True)
        os.environ["DURE_CACHE"] = str(folder / "cache")
        if not (folder / "all.csv").exists():
            make_run(folder)
            write_table(folder / "less.csv", options.less)
            write_table(folder / "all.csv", options.rows)
        record = folder / "ways.json"
        found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        ways = steps(folder, options.workers)
        for way in [way for way in ways if way not in found][: options.ways]:
            found[way] = {**vars(ways[way]()), "load": os.getloadavg()[0]}
            record.write_text(json.dumps(found), encoding="utf-8")
        if len(found) == len(ways):
            require_equal(folder, "less_one.csv", "less_many.csv")
            require_equal(folder, "one.csv", "many.csv")
            print("all files are byte-equal", file=sys.stderr)
    table = Table(title=f"{options.rows:,} rows ({options.less:,} fewer)")
    for heading in ("way", "wall s", "CPU s", "peak MB", "load"):
        table.add_column(heading)
    for way, each in found.items():
        table.add_row(way, *(f"{each[key]:.0f}" for key in ("seconds", "cpu_seconds", "peak_mb", "load")))
    Console(stderr=True).print(table)
    print(json.dumps({"benchmark": "large_table", "rows": options.rows, "less": options.less, "ways": found}))


if __name__ == "__main__":
    main()
