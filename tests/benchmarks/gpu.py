"""dure on one NVIDIA card, against a plain Hugging Face loop: speed, memory, and what each way of saving brings.

    python -m tests.benchmarks.gpu [--quick] [--device cpu] [--parts NAME …]

Eight minutes on one card, a third of it with ``--quick``; with ``--device cpu`` everything in miniature, which shows that
the script works and measures nothing. Models have random weights from sizes that stand here, rows are made up with the
lengths of DialogSum: no hub, no tokenizer, no data. It needs torch 2.11 and newer, transformers 5.17 and newer, peft,
and of small packages accelerate, datasets, numpy, packaging, psutil, pyarrow, pydantic, pyyaml, rapidfuzz, rich,
safetensors, tokenizers and xxhash; no Ray. DeepSpeed, bitsandbytes and ``trainables.causal`` are used when they are
there.

* ``card``: the most bf16 products per second that large matrices reach, which is the peak that shares are of.
* a model each: dure's trainer and the plain ``Trainer`` (bf16, dynamic padding) in turn in one process. Tokens per second
  are real tokens, without padding. The FLOPs of a token are counted by ``torch.utils.flop_counter`` over forward and
  backward passes of single rows, so that padding counts as lost. Beside the peak of memory stands what weights,
  gradients and moments take by their sizes, without activations.
* ``output layer``: mT5 with and without logits in chunks, and the layer alone with torch's own ``linear_cross_entropy``.
* ``compile``, ``packing``: with and without.
* ``batch sizes``: rows of full length, 1, 2, 4 … at once, until memory or time is over.
* ``4-bit``: LoRA on 4-bit weights and on bf16.
* ``offload``: the 730M model with its optimizer in the computer's memory, the card held to 8 GB. DeepSpeed compiles that
  optimizer when it is first used; where this takes longer than the part, ``--parts offload`` gives it all the time.

The parts run in a process beside this one. Each has a share of the time and ends with it; when one fails or takes the
process down, another process goes on with the next, and what was measured stays. The table goes to stderr, the JSON to
stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

SHARES = {
    "card": 1.5,
    "mT5-base": 7.0,
    "KoBART": 4.0,
    "BERT-base": 3.5,
    "Red Heart 730M": 7.0,
    "output layer": 5.0,
    "compile": 7.0,
    "packing": 3.0,
    "batch sizes": 5.0,
    "4-bit": 5.0,
    "offload": 7.0,
}
"""The parts in their order, and what each gets of the time, in relation; what one leaves, the following share."""
FULL_SECONDS, QUICK_SECONDS = 460, 150
_SECONDS_TO_START, _GRACE = 120, 15
"""What a process may take until its first word, and a part beyond its time, before it is ended."""
COLUMNS = {
    "tokens_per_second": ("tokens/s", 0),
    "spread": ("± tokens/s", 0),
    "ratio": ("ratio", 2),
    "share_of_peak": ("of peak", 3),
    "padding": ("padding", 3),
    "milliseconds": ("ms", 1),
    "allocated_mb": ("allocated MiB", 0),
    "reserved_mb": ("reserved MiB", 0),
    "foretold_mb": ("foretold MiB", 0),
    "warm_up_seconds": ("warm-up s", 1),
    "tflops": ("TFLOP/s", 2),
}
"""Figures of the table: key in the JSON → heading and digits."""


@dataclass
class Found:
    """What was measured."""

    machine: dict[str, Any] = field(default_factory=dict)
    """Versions and card, as the first process says."""
    results: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Figures by part and case; a case that is measured again takes the place of its former self."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a part has no figures, or not all."""

    def take(self, part: str, said: dict[str, Any]) -> None:
        """Note what a process said of a part."""
        if "machine" in said:
            self.machine = said["machine"]
        elif "skipped" in said:
            self.skipped[part] = said["skipped"]
        elif "row" in said:
            self.results[part, said["row"]["case"]] = {"part": part, **said["row"]}

    @property
    def peak(self) -> float | None:
        """The reachable peak in TFLOP/s, once it is known."""
        peak: float | None = self.results.get(("card", "matrix product"), {}).get("tflops")
        return peak


class Worker:
    """A process that measures parts one after the other and says what it finds, a line of JSON each.

    Args:
        command: What starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self._lines.put(line)
            else:  # what packages print while they are imported
                sys.stderr.write(line)
        self._lines.put(None)

    def next(self, seconds: float) -> dict[str, Any] | None:
        """Return the next thing said, or None when the process has ended.

        Raises:
            queue.Empty: Nothing was said for so long.
        """
        line = self._lines.get(timeout=max(0.1, seconds))
        return None if line is None else dict(json.loads(line))

    def end(self) -> int:
        """End the process, if it has not by itself, and return its exit code."""
        if self.process.poll() is None:
            try:
                return self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


def measure(parts: Sequence[str], device: str, seconds: float) -> Found:
    """Measure parts, with a new process whenever one is lost."""
    found, ends, left = Found(), time.monotonic() + seconds, list(parts)
    while left:
        if ends - time.monotonic() < 5:
            found.skipped |= dict.fromkeys(left, "no time was left")
            break
        order = {"device": device, "parts": left, "seconds": ends - time.monotonic(), "peak": found.peak}
        command = [sys.executable, "-m", "tests.benchmarks.gpu_parts", json.dumps(order)]
        left = follow(Worker(command), left, found)
        if device == "cuda" and found.skipped.get("card", "").startswith("no CUDA"):
            break
    return found


def follow(worker: Worker, parts: Sequence[str], found: Found) -> list[str]:
    """Note what a process finds until it ends, and return the parts that it did not come to.

    A process that does not come to its first part is the last: another one would not either.
    """
    waiting, part, reason = list(parts), "", ""
    patience = time.monotonic() + _SECONDS_TO_START
    try:
        while (said := worker.next(patience - time.monotonic())) is not None:
            if "begins" in said:
                part = said["begins"]
                waiting.remove(part)
                patience = time.monotonic() + said["seconds"] + _GRACE
                print(f"{part}: {said['seconds']:.0f} s", file=sys.stderr)
            elif "ended" in said:
                part, patience = "", time.monotonic() + _SECONDS_TO_START
            else:
                found.take(part, said)
    except queue.Empty:
        worker.process.kill()
        reason = "stopped: it did not end within its time"
    except BaseException:
        worker.process.kill()
        raise
    code = worker.end()
    reason = reason or f"its process ended with code {code}"
    if part:
        found.skipped.setdefault(part, reason)
    if len(waiting) == len(parts):
        found.skipped |= dict.fromkeys(waiting, reason)
        return []
    return waiting


def shown(found: Found, seconds: float) -> Table:
    """Return all figures as a table."""
    card = found.machine.get("card", "nothing measured")
    table = Table(title=f"{card}, {seconds:.0f} s")
    rows = list(found.results.values())
    columns = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    for heading in ("part", "case", *(COLUMNS[key][0] for key in columns), "note"):
        table.add_column(heading)
    for row in rows:
        figures = ("–" if row.get(key) is None else f"{row[key]:,.{COLUMNS[key][1]}f}" for key in columns)
        table.add_row(row["part"], row["case"], *figures, row.get("note", ""))
    for part, reason in found.skipped.items():
        is_begun = any(row["part"] == part for row in rows)
        table.add_row(part, "not finished" if is_begun else "skipped", *("" for _ in columns), reason)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print table and JSON, and return the exit code: 2 without a card, 1 when nothing was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a third of the time")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu runs in miniature")
    parser.add_argument("--parts", nargs="+", choices=tuple(SHARES), default=tuple(SHARES), metavar="NAME")
    given = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    parts = [part for part in SHARES if part in {"card", *given.parts}]
    began, date = time.monotonic(), datetime.now().astimezone().isoformat(timespec="seconds")
    found = measure(parts, given.device, QUICK_SECONDS if given.quick else FULL_SECONDS)
    seconds = time.monotonic() - began
    if not found.results:
        print("; ".join(f"{part}: {reason}" for part, reason in found.skipped.items()), file=sys.stderr)
        return 2 if found.skipped.get("card", "").startswith("no CUDA") else 1
    Console(stderr=True, width=None if sys.stderr.isatty() else 200).print(shown(found, seconds))
    report = {
        "benchmark": "gpu",
        "command": shlex.join(["python", "-m", "tests.benchmarks.gpu", *words]),
        "date": date,
        "load": os.getloadavg()[0],
        "seconds": round(seconds, 1),
        "machine": found.machine,
        "results": list(found.results.values()),
        "skipped": found.skipped,
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
