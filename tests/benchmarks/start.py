"""What a command costs before it does anything: CPU seconds of whole processes.

Usage: python -m tests.benchmarks.start [--repeats 3]

The imports of a trial's process are measured as dure does them, and as Python does them by itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from tests.benchmarks.table import Row, Spent, hand_over

TRIAL, PLAINLY = "imports of a trial", "the same libraries imported plainly"
_TRIAL = "import dure.studies.trial, dure.training.trainer, trainables.summarization"
_MODULES = "import ray.tune, ray.train.torch, torch, transformers, datasets; from transformers import Trainer; import bitsandbytes, peft"
WAYS = {
    "dure --help": ["-m", "dure", "--help"],
    "train --dry-run": ["-m", "dure", "train", "kobart_baseline", "--dry-run"],
    "run seven --dry-run": ["-m", "dure", "run", "seven", "--dry-run"],
    "a missing table": ["-m", "dure", "train", "kobart_baseline", "data.train=no_such.csv", "data.dev=null"],
    "a wrong key": ["-m", "dure", "train", "kobart_baseline", "training.learning_rat=1"],
    TRIAL: ["-c", _TRIAL],
    PLAINLY: ["-c", _MODULES],
}
ASKED = {
    "dure --help": 0.3, "train --dry-run": 2.0, "run seven --dry-run": 2.0, "a missing table": 1.5, "a wrong key": 1.5,
}  # fmt: skip


def spent(words: Sequence[str]) -> Spent:
    """Run Python with some words and return what the process took."""
    return Spent.by(lambda: subprocess.run([sys.executable, *words], capture_output=True, check=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways in turn, and hand their rows over."""
    parser = argparse.ArgumentParser(description="What a command costs before it does anything")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    found: dict[str, list[Spent]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way, words in WAYS.items():
            found[way].append(spent(words))
    rows = [Row(way, {"dure": found[way]}, 1, asked) for way, asked in ASKED.items()]
    trial = {"dure": found[TRIAL], PLAINLY: found[PLAINLY]}
    hand_over("start", [*rows, Row(TRIAL, trial, 1, 2.0)])


if __name__ == "__main__":
    main()
