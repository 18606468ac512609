"""Forecasts beside what comes: memory of a training step, and time of a run before and after ``--measure``.

    python -m tests.benchmarks.forecast memory [EXPERIMENT…]
    python -m tests.benchmarks.forecast time [EXPERIMENT…] [--steps 20]

Every experiment is rehearsed. *Memory*: the step on the longest micro-batch, at the experiment's batch and at half of it,
with and without checkpointing; foretold by a trace, and what torch's profiler says the allocator gave. *Time*: of a whole
rehearsal, foretold by the pace of the other experiments named here, foretold after so many measured steps, and what came.
The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import numpy
import torch
from rich.console import Console
from rich.table import Table

from dure import api
from dure.config import load_experiment, load_profile, rehearsal_of
from dure.config.schema import Experiment
from dure.data.batching import length_order
from dure.data.collating import Batch, Batches
from dure.family import Family, load_family
from dure.family.corpus import Corpus, load_corpus
from dure.modeling.attention import AttentionByRows, no_cache
from dure.modeling.objectives import Objective
from dure.modeling.tracing import trace_step
from dure.training.run import RunRequest, run

NAMES = {
    "memory": [
        "kobart_baseline", "eenzeenee_t5", "mt5_xlsum_optimized_v2", "transfer_bert", "transfer_distilbert",
        "kobert_emotion", "red_heart_tiny", "causal_qwen", "causal_gemma", "causal_exaone",
    ],
    "time": ["transfer_distilbert", "eenzeenee_t5", "causal_qwen"],
}  # fmt: skip
"""What is taken where nothing is named."""


def real_peak(
    model: Any, batches: Batches, objective: Objective, batch: Batch, *, passes: int, by_rows: bool = False
) -> int:
    """Return the bytes that a step takes at its peak by torch's profiler, which asks the allocator."""
    model = copy.deepcopy(model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    items = objective.count(batches.targets(batch))

    def step() -> None:
        for _ in range(passes):
            with AttentionByRows(model).applied() if by_rows else nullcontext():
                given = no_cache(model) | batches.inputs(batch)
                objective(model(**given), batches.targets(batch), items).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # The optimizer has its state from here on.
    state = [value for each in optimizer.state.values() for value in each.values() if torch.is_tensor(value)]
    inputs = [value for value in batch.values() if torch.is_tensor(value)]
    held = {id(each): each for each in (*model.parameters(), *model.buffers(), *state, *inputs)}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:  # fmt: skip
        step()
    now = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return sum(each.untyped_storage().nbytes() for each in held.values()) + peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=NAMES)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT")
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args(arguments)
    names = asked.names or NAMES[asked.what]
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        os.environ["DURE_CACHE"] = f"{folder}/cache"
        rows = (
            [row for name in names for row in memory_rows(name)]
            if asked.what == "memory"
            else time_rows(names, asked.steps, Path(folder))
        )
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(stderr=True, width=140).print(table)
    print(json.dumps(rows, indent=2))


def memory_rows(name: str) -> list[dict[str, Any]]:
    """Return the peaks of an experiment's step, in MiB."""
    family = load_family(rehearsal_of(load_experiment(name)), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, load_profile("cpu"))
    size = family.experiment.training.batch_size
    return [
        _memory_row(name, family, corpus, model, rows, checkpointing)
        for rows in sorted({max(1, size // 2), size})
        for checkpointing in (False, True)
    ]


def _memory_row(
    name: str, family: Family, corpus: Corpus, model: Any, rows: int, checkpointing: bool
) -> dict[str, Any]:
    batches, objective = family.batches(corpus.tokenizer, model), family.objective(model, corpus.train)
    longest = length_order(numpy.asarray(corpus.train["length"]))[:rows]
    batch = batches.collate([corpus.train[int(row)] for row in longest])
    traced = trace_step(
        model, batches, objective, batch, precision="fp32", checkpointing=checkpointing, by_rows=True
    ).peak
    stepped = copy.deepcopy(model)
    if checkpointing:
        stepped.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    real = real_peak(stepped, batches, objective, batch, passes=1, by_rows=True)
    return {
        "experiment": name, "lora": family.experiment.lora is not None, "rows": rows, "checkpointing": checkpointing,
        "foretold MiB": traced / 2**20, "came MiB": real / 2**20, "error %": 100 * (traced / real - 1),
    }  # fmt: skip


def time_rows(names: Sequence[str], steps: int, folder: Path) -> list[dict[str, Any]]:
    """Return the seconds of whole rehearsals, and by how much both forecasts are off in their middle."""
    profile = load_profile("cpu")
    caches = {name: str(folder / f"cache-{name}") for name in names}
    for other in names:  # The pace of every experiment is known to all others, and not to itself.
        for name in names:
            if name != other:
                _foretold(other, caches[name], steps)
    found = []
    for name in names:
        before = _foretold(name, caches[name], None)
        after = _foretold(name, caches[name], steps)
        experiment: Experiment = rehearsal_of(load_experiment(name))
        came = run(RunRequest(experiment, profile, folder / name)).seconds
        found.append(
            {
                "experiment": name,
                "came s": came,
                "before s": _ends(before),
                "off before %": _off(before, came),
                "after s": _ends(after),
                "off after %": _off(after, came),
            }
        )
    return found


def _foretold(name: str, cache: str, steps: int | None) -> list[float]:
    os.environ["DURE_CACHE"] = cache
    found = api.forecast(name, profile="cpu", rehearse=True, measure=steps)
    return list(found["experiments"][0]["seconds"])


def _ends(seconds: Sequence[float]) -> str:
    return f"{seconds[0]:.1f}–{seconds[1]:.1f}"


def _off(seconds: Sequence[float], came: float) -> float:
    return 100 * (sum(seconds) / 2 / came - 1)


if __name__ == "__main__":
    main()
