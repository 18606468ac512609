"""What a command costs before it does anything: CPU seconds of whole processes.

Usage: python -m tests.benchmarks.start [--repeats 3]

The imports of a trial's process are measured as dure does them, and as Python does them by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

_TRIAL = "import dure.studies.trial, dure.training.run, trainables.summarization"
_MODULES = "import ray.tune, ray.train.torch, torch, transformers, datasets; from transformers import Trainer; import bitsandbytes, peft"
WAYS = {
    "dure --help": ["-m", "dure", "--help"],
    "train --dry-run": ["-m", "dure", "train", "kobart_baseline", "--dry-run"],
    "run seven --dry-run": ["-m", "dure", "run", "seven", "--dry-run"],
    "a missing table": ["-m", "dure", "train", "kobart_baseline", "data.train=no_such.csv", "data.dev=null"],
    "a wrong key": ["-m", "dure", "train", "kobart_baseline", "training.learning_rat=1"],
    "imports of a trial": ["-c", _TRIAL],
    "the same libraries imported plainly": ["-c", _MODULES],
}
ASKED = {
    "dure --help": 0.3, "train --dry-run": 2.0, "run seven --dry-run": 2.0, "a missing table": 1.5, "a wrong key": 1.5,
}  # fmt: skip


def cpu_seconds(words: Sequence[str]) -> float:
    """Run Python with some words and return the CPU seconds of the process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways in turn, and print table and JSON."""
    parser = argparse.ArgumentParser(description="What a command costs before it does anything")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way, words in WAYS.items():
            found[way].append(cpu_seconds(words))
    load = os.getloadavg()[0]
    table = Table(title=f"CPU seconds, median of {options.repeats}, load {load:.1f}")
    for heading in ("what", "CPU s", "spread", "asked"):
        table.add_column(heading)
    for way, each in found.items():
        table.add_row(way, f"{median(each):.2f}", f"{max(each) - min(each):.2f}", f"{ASKED.get(way, '')}")
    Console(stderr=True).print(table)
    ways = [
        {"way": way, "cpu_seconds": median(each), "spread": max(each) - min(each)}
        for way, each in found.items()
    ]
    print(json.dumps({"benchmark": "start", "load": load, "ways": ways}, indent=2))


if __name__ == "__main__":
    main()
