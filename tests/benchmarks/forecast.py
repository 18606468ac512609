"""Forecasts beside what comes: memory of a training step, and time of a run before and after ``--measure``.

    python -m tests.benchmarks.forecast memory [EXPERIMENT…]
    python -m tests.benchmarks.forecast time [EXPERIMENT…] [--steps 20]

Every experiment is rehearsed, but ``nsmc``, which is a small BERT on real reviews. *Memory*: the step on the longest
micro-batch, at the experiment's batch and at half of it, with and without checkpointing; foretold by a trace, and what
torch's profiler says the allocator gave. *Time*: of a whole run, foretold by what the other experiments named here took,
foretold after so many measured steps, and what came, each in a process of its own; the error is that of the middle of the
interval, of all and of the rest after as many steps. All three are CPU seconds, since a machine is seldom idle; with
``--wall`` they are what passes. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from rich.console import Console
from rich.table import Table

from dure import api
from dure.config import load_experiment, load_profile, rehearsal_of
from dure.config.loading import dump_yaml
from dure.data.batching import length_order
from dure.data.collating import Batch, Batches
from dure.family import Family, load_family
from dure.family.corpus import Corpus, load_corpus
from dure.files import read_json_lines
from dure.modeling.attention import no_cache
from dure.modeling.cpu_layers import CpuLayers
from dure.modeling.objectives import Objective
from dure.modeling.packed_layers import quantization_of
from dure.modeling.tracing import trace_step
from dure.runs.pace import PACE_FILE
from dure.training import recorder
from dure.training.run import RunRequest, run
from tests.benchmarks.small_encoder import experiment, require_data, save_encoder

NAMES = {
    "memory": [
        "kobart_baseline", "eenzeenee_t5", "mt5_xlsum_optimized_v2", "transfer_bert", "transfer_distilbert",
        "kobert_emotion", "red_heart_tiny", "causal_qwen", "causal_gemma", "causal_exaone",
    ],
    "time": [
        "mt5_xlsum_optimized_v2", "mt5_xlsum_korean_adapted", "mt5_xlsum_ultimate", "eenzeenee_t5", "kobart_baseline",
        "high_learning_rate", "batch_optimization", "nsmc",
    ],
}  # fmt: skip
"""What is taken where nothing is named."""


def real_peak(
    model: Any, batches: Batches, objective: Objective, batch: Batch, *, passes: int, cpu_layers: bool = False
) -> int:
    """Return the bytes that a step takes at its peak by torch's profiler, which asks the allocator."""
    model = copy.deepcopy(model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    items = objective.count(batches.targets(batch))

    def step() -> None:
        for _ in range(passes):
            with CpuLayers(model).applied() if cpu_layers else nullcontext():
                given = no_cache(model) | batches.inputs(batch)
                objective(model(**given), batches.targets(batch), items).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # The optimizer has its state from here on.
    gc.collect()  # What went round in circles since must not be freed while it is counted.
    state = [value for each in optimizer.state.values() for value in each.values() if torch.is_tensor(value)]
    inputs = [value for value in batch.values() if torch.is_tensor(value)]
    packed = [each for layer in model.modules() for each in quantization_of(layer)]
    held = {id(each): each for each in (*model.parameters(), *model.buffers(), *packed, *state, *inputs)}
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
    parser.add_argument("--wall", action="store_true")
    asked = parser.parse_args(arguments)
    names = asked.names or NAMES[asked.what]
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        os.environ["DURE_CACHE"] = f"{folder}/cache"
        rows = (
            [row for name in names for row in memory_rows(name)]
            if asked.what == "memory"
            else time_rows(names, asked.steps, Path(folder), wall=asked.wall)
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
        model, batches, objective, batch, precision="fp32", checkpointing=checkpointing, kernels="cpu"
    ).peak
    stepped = copy.deepcopy(model)
    if checkpointing:
        stepped.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    real = real_peak(stepped, batches, objective, batch, passes=1, cpu_layers=True)
    return {
        "experiment": name, "lora": family.experiment.lora is not None, "rows": rows, "checkpointing": checkpointing,
        "foretold MiB": traced / 2**20, "came MiB": real / 2**20, "error %": 100 * (traced / real - 1),
    }  # fmt: skip


def time_rows(names: Sequence[str], steps: int, folder: Path, *, wall: bool = False) -> list[dict[str, Any]]:
    """Return the seconds of whole runs, and by how much both forecasts are off in their middle."""
    after = {name: _fresh(_foretold, name, folder, steps, wall) for name in names}
    measured = {name: _times(folder, name).read_text("utf-8") for name in names}
    found = []
    for name in names:
        others = "".join(text for other, text in measured.items() if other != name)
        _times(folder, name).write_text(others, "utf-8")  # The pace of all others is known, and not its own.
        before = _fresh(_foretold, name, folder, None, wall) if others else None
        _times(folder, name).write_text(measured[name], "utf-8")
        came, spent = _fresh(_came, name, folder, steps, wall)
        off = _middle(after[name]) - came
        found.append(
            {
                "experiment": name,
                "came s": came,
                "before s": "" if before is None else _ends(before),
                "off before %": "" if before is None else 100 * (_middle(before) / came - 1),
                "after s": _ends(after[name]),
                "off after %": 100 * off / came,
                "off rest %": 100 * off / (came - spent),
                "held": after[name][0] <= came <= after[name][1],
                "load": os.getloadavg()[0],
            }
        )
    return found


def _fresh(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do some work in a process of its own, which has loaded and scored nothing yet."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _foretold(name: str, folder: Path, steps: int | None, wall: bool) -> list[float]:
    _prepare(name, folder, wall)
    found = api.forecast(str(_file(name, folder)), profile="cpu", measure=steps)
    return list(found["experiments"][0]["seconds"])


def _came(name: str, folder: Path, steps: int, wall: bool) -> tuple[float, float]:
    """Return the seconds of a run, and those of its first steps."""
    _prepare(name, folder, wall)
    experiment = load_experiment(str(_file(name, folder)))
    seconds = run(RunRequest(experiment, load_profile("cpu"), folder / name)).seconds
    records = read_json_lines(folder / name / "metrics.jsonl")
    done = [(0, 0.0), *((each["step"], each["seconds"]) for each in records if each["kind"] == "train")]
    return seconds, float(numpy.interp(steps, *zip(*done, strict=True)))


def _prepare(name: str, folder: Path, wall: bool) -> None:
    """Let this process keep its own times, and count its CPU seconds."""
    import transformers.trainer
    import transformers.trainer_utils

    os.environ["DURE_CACHE"] = str(_times(folder, name).parent)
    if not wall:
        recorder.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[assignment]
        for module in (transformers.trainer, transformers.trainer_utils):
            module.time = SimpleNamespace(time=time.process_time)


def _times(folder: Path, name: str) -> Path:
    return folder / f"cache-{name}" / PACE_FILE


def _file(name: str, folder: Path) -> Path:
    """Write what is run, unless it is there, and return its file: a rehearsal, or a small encoder on film reviews."""
    file = folder / f"{name}.yaml"
    if not file.is_file():
        if name == "nsmc":
            require_data()
            what = experiment(name, save_encoder(folder / "encoder", seed=1), seed=1, epochs=3)
        else:
            what = rehearsal_of(load_experiment(name))
        file.write_text(dump_yaml(what), encoding="utf-8")
    return file


def _ends(seconds: Sequence[float]) -> str:
    return f"{seconds[0]:.1f}–{seconds[1]:.1f}"


def _middle(seconds: Sequence[float]) -> float:
    return sum(seconds) / 2


if __name__ == "__main__":
    main()
