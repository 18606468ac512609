"""What a process that trains on a CPU takes for its tensors: the heap's gaps, and whole runs beside their forecast.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.process_memory

*Loop*: a bare PyTorch loop over batches of many lengths; by how much the process grew from before its longest step, and the
most bytes that tensors of one such step have at a time. Once as it is, and once with ``mmap_threshold`` at 256 KiB, by which
glibc gives every larger tensor back to the system. *Run*: ``dure.train`` of an encoder on 8,000 real reviews; its forecast
and its ``peak_memory_mb``. Every row is a process of its own. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertForSequenceClassification

import dure
from dure.files import read_json
from dure.modeling.tracing import Operators
from tests.benchmarks import small_encoder

_MIB = 2**20
_M_MMAP_THRESHOLD = -3
LOOPS = [(64, 2, 16, 64, 600), (128, 4, 16, 64, 5000), (256, 4, 16, 64, 300), (512, 4, 16, 96, 100)]
"""Width, layers, rows and tokens of the longest batch, steps."""
RUNS = [(128, 2, 32, 5), (256, 2, 32, 2), (512, 4, 32, 1)]
"""Width, layers, rows of a batch, epochs of 8,000 rows."""


def loop(
    width: int, layers: int, rows: int, tokens: int, steps: int, threshold: int | None
) -> dict[str, Any]:
    """Train on batches of many lengths; the growth of the process beside the tensors of the longest step."""
    libc = ctypes.CDLL("libc.so.6")
    if threshold is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, threshold)
    random.seed(0)
    config = BertConfig(
        vocab_size=2000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step(length: int) -> None:
        ids, labels = torch.randint(0, 2000, (rows, length)), torch.randint(0, 2, (rows,))
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step(8)  # The optimizer has its state, and the kernels are read.
    states = [value for state in optimizer.state.values() for value in state.values()]
    with Operators([*model.parameters(), *states], {}) as counted:
        held = sum(each.size for each in counted.held)
        step(tokens)
    del states
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, began = psutil.Process().memory_info().rss, time.process_time()
    for number in range(steps):
        step(random.randint(tokens // 4, tokens) if number % 5 else tokens)
    peak = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    grown = int(peak.split()[1]) * 1024 - before
    return {
        "what": f"loop, {width} wide, {layers} layers, {rows} × {tokens}",
        "heap": "as it is" if threshold is None else f"mmap from {threshold // 1024} KiB",
        "tensors_mb": round((counted.peak - held) / _MIB, 1),
        "came_mb": round(grown / _MIB, 1),
        "ratio": round(grown / (counted.peak - held), 2),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def run(width: int, layers: int, rows: int, epochs: int) -> dict[str, Any]:
    """Train an encoder on reviews; its peak beside its forecast."""
    small_encoder.SIZES.update(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    with tempfile.TemporaryDirectory() as folder:
        encoder = small_encoder.save_encoder(Path(folder, "encoder"), seed=1)
        changes = {"data.max_train_rows": 8000, "data.max_dev_rows": 200, "training.epochs": epochs}
        changes |= {"training.batch_size": rows, "training.eval_batch_size": rows}
        experiment = small_encoder.experiment("memory", encoder, seed=1).with_(changes)
        dure.train(experiment, output=Path(folder, "run"), profile="cpu")
        result = read_json(Path(folder, "run", "result.json"), what="result", hint="")
    (least, most), came = result["forecast"]["memory_mb"], result["metrics"]["peak_memory_mb"]
    off = max(came - most, 0) + min(came - least, 0)
    return {
        "what": f"run, {width} wide, {layers} layers, {rows} rows, {epochs} epochs",
        "forecast_mb": [least, most],
        "came_mb": came,
        "off": f"{-off / came:+.1%}",
    }


def main() -> None:
    """Measure all, and print the table and the JSON."""
    small_encoder.require_data()
    jobs: list[tuple[Any, ...]] = [
        (loop, *each, threshold) for each in LOOPS for threshold in (None, 256 * 1024)
    ]
    jobs += [(run, *each) for each in RUNS]
    found = []
    for function, *arguments in jobs:
        # DeepSpeed writes to stdout when it is imported.
        with ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=os.dup2, initargs=(2, 1)
        ) as pool:
            found.append(pool.submit(function, *arguments).result())
    table = Table("what", "heap", "tensors or forecast MiB", "came MiB", "ratio or off", "CPU s")
    for each in found:
        told = each.get("tensors_mb") or "–".join(f"{size:,.0f}" for size in each["forecast_mb"])
        cells = (each["what"], each.get("heap", ""), told, each["came_mb"], each.get("ratio") or each["off"])
        table.add_row(*map(str, cells), str(each.get("cpu_seconds", "")))
    Console(stderr=True).print(table)
    json.dump(found, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
