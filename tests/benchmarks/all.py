"""All benchmarks that compare dure with somebody, and ONE table of what they measured.

    python -m tests.benchmarks.all [--only start validation …] [--output benchmarks.json]

Every benchmark runs in a process of its own with one thread, one after the other. The table goes to stdout, and the rows
with all their repeats to a JSON file. Ends with exit code 1 when a benchmark failed; what the others measured is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks.table import Row, one_table

BENCHMARKS = (
    "start",
    "output_layer",
    "validation",
    "throughput",
    "checkpoints",
    "rouge",
    "trial_overhead",
)


def measured(benchmark: str) -> dict[str, Any] | None:
    """Run a benchmark and return what it handed over; None when it failed or lacks its data.

    Its progress goes to stderr.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{benchmark}"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description="All benchmarks in one table")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks.json"))
    options = parser.parse_args(arguments)
    found, failed = list[dict[str, Any]](), list[str]()
    for benchmark in options.only:
        began = time.perf_counter()
        result = measured(benchmark)
        if result is None:
            failed.append(benchmark)
        else:
            found.append(result)
        print(f"{benchmark}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    rows = [Row.of(row) for each in found for row in each["rows"]]
    Console(width=170).print(
        one_table(rows, "dure beside its peers: less is better, a ratio above 1 is dure's")
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"benchmarks": found, "failed": failed}, indent=2), encoding="utf-8")
    print(f"{options.output}", file=sys.stderr)
    if failed:
        print(f"nothing was measured by {', '.join(failed)}: failed, or without its data", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
