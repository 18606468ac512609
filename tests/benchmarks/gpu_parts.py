"""The process of ``tests.benchmarks.gpu`` that measures: ``python -m tests.benchmarks.gpu_parts ORDER``.

It says a line of JSON for everything it finds. After a part that failed it ends, since a card may be of no more use to a
process then, and before a part that needs a process of its own; another one is started for the parts that are left.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dure.errors import RunError
from dure.training.memory import release
from dure.training.oom import is_out_of_memory
from tests.benchmarks.gpu import SHARES
from tests.benchmarks.gpu_models import MODELS, Kind
from tests.benchmarks.gpu_training import (
    Measured,
    adapted,
    dure_trainer,
    hf_trainer,
    layer_alone,
    measured,
    packing_trainer,
    synchronize,
    useful_flops,
)

Row = dict[str, Any]
_MB = 2**20
_NO_MEMORY = "out of memory"
_CARD_OF_8_GB = 7.5e9
"""Bytes that the allocator may take of a card of 8 GB; the rest is the driver's."""


class SkippedPartError(Exception):
    """Says why a part is not measured."""


class Bench:
    """What parts know.

    Args:
        device: ``cuda``, or ``cpu`` for everything in miniature.
        peak: The reachable peak in TFLOP/s, once it is known.
    """

    def __init__(self, device: str, peak: float | None) -> None:
        self.device, self.peak = device, peak
        self.is_small = device == "cpu"
        self.ends = 0.0

    @property
    def left(self) -> float:
        """Seconds that are left to the part."""
        return self.ends - time.monotonic()

    def kind(self, name: str) -> Kind:
        """Return a model to build, small in miniature."""
        return MODELS[name](self.is_small)


def card(bench: Bench) -> Iterator[Row]:
    """Measure the most products per second that matrices in bf16 reach on this card."""
    best, best_size = 0.0, 0
    for size in (256,) if bench.is_small else (4096, 8192, 16384):
        one, other = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
        torch.mm(one, other)
        for _ in range(3):  # the best of three, for a clock that rises
            synchronize(bench.device)
            began, done, seconds = time.perf_counter(), 0, 0.0
            while seconds < (0.02 if bench.is_small else 0.4):
                for _ in range(5):
                    torch.mm(one, other)
                synchronize(bench.device)
                done, seconds = done + 5, time.perf_counter() - began
            rate = done * 2 * size**3 / seconds / 1e12
            best, best_size = max((best, best_size), (rate, size))
    bench.peak = best
    yield {"case": "matrix product", "tflops": best, "note": f"bf16, {best_size} × {best_size}"}


def in_turn(
    bench: Bench,
    ways: Mapping[str, Callable[[float], Measured]],
    *,
    flops: float | None = None,
    repeats: int = 2,
) -> Iterator[Row]:
    """Measure ways of training one after the other, and again; the ratio is to the last of them.

    Args:
        bench: The card and the time.
        ways: Name → trains for some seconds.
        flops: FLOPs of a real token, if they are known.
        repeats: Times that each way is measured, if there is time.
    """
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    failed: dict[str, str] = {}
    longest = 0.0
    broken: Exception | None = None
    for repeat in range(1 if bench.is_small else repeats):
        for place, (name, train) in enumerate(ways.items()):
            runs_left = (repeats - repeat) * len(ways) - place
            if name in failed or (found[name] and bench.left < longest):
                continue
            began = time.monotonic()
            try:
                found[name].append(train(0.02 if bench.is_small else min(10.0, 0.5 * bench.left / runs_left)))
            except Exception as error:  # whatever one way does not manage, the others may
                failed[name] = _first_line(error)
                if failed[name] != _NO_MEMORY:
                    traceback.print_exc()
                    broken = RuntimeError(f"{name}: {failed[name]}")
                traceback.clear_frames(error.__traceback__)
            longest = max(longest, time.monotonic() - began)
            yield _row(bench, name, found, failed, flops)
    for name in ways:
        yield _row(bench, name, found, failed, flops)
    if broken is not None:
        raise broken


def _first_line(error: BaseException) -> str:
    # dure's trainer tries again, and gives up in words of its own.
    if is_out_of_memory(error) or (isinstance(error, RunError) and _NO_MEMORY in str(error)):
        return _NO_MEMORY
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _row(
    bench: Bench,
    name: str,
    found: Mapping[str, list[Measured]],
    failed: Mapping[str, str],
    flops: float | None,
) -> Row:
    """Return the figures of one way: medians over its repeats."""
    runs, others = found[name], [*found.values()][-1]
    if not runs:
        return {"case": name, "note": failed.get(name, "no time was left")}
    speeds = [run.tokens_per_second for run in runs]
    row: Row = asdict(runs[-1]) | {
        "flops_per_token": flops,
        "case": name,
        "tokens_per_second": median(speeds),
        "spread": (max(speeds) - min(speeds)) / 2,
        "repeats": len(speeds),
    }
    if others and runs is not others:
        row["ratio"] = median(speeds) / median(run.tokens_per_second for run in others)
    if flops is not None and bench.peak:
        row["share_of_peak"] = median(speeds) * flops / (bench.peak * 1e12)
    return row


def against_hf(name: str, bench: Bench) -> Iterator[Row]:
    """Train one model by dure and by a plain Hugging Face loop."""
    kind = bench.kind(name)
    flops = useful_flops(kind, bench.device, 2 if bench.is_small else 8)
    makers: dict[str, Callable[..., Any]] = {"dure": dure_trainer, "Hugging Face": hf_trainer}
    ways = {
        name: partial(measured, partial(make, kind, bench.device), bench.device)
        for name, make in makers.items()
    }
    for row in in_turn(bench, ways, flops=flops):
        yield row | {"batch_size": kind.batch_size}


def output_layer(bench: Bench) -> Iterator[Row]:
    """Train mT5 with and without logits in chunks, then compute the layer alone in three ways."""
    kind = bench.kind("mT5-base")

    def whole(folder: Path) -> Any:
        made = dure_trainer(kind, bench.device, folder)
        objective: Any = made.hf.parts.objective
        objective.takes_projected = False
        return made

    ways: dict[str, Callable[[Path], Any]] = {
        "mT5-base, in chunks": partial(dure_trainer, kind, bench.device),
        "mT5-base, whole": whole,
    }
    yield from in_turn(
        bench, {name: partial(measured, make, bench.device) for name, make in ways.items()}, repeats=1
    )
    sizes = (64, 32, 500) if bench.is_small else (2048, 768, 250_112)
    for way in ("in chunks", "whole", "linear_cross_entropy"):
        yield {"case": f"alone, {way}"} | layer_alone(way, bench.device, *sizes)


def compiled(bench: Bench) -> Iterator[Row]:
    """Train with and without torch.compile: an encoder, then an encoder–decoder if there is time."""
    for name in ("BERT-base",) if bench.is_small else ("BERT-base", "KoBART"):
        kind = bench.kind(name)

        def make(folder: Path, kind: Kind = kind) -> Any:
            made = dure_trainer(kind, bench.device, folder)
            # In miniature it is only traced: compiling would take longer than all else together.
            made.model.compile(dynamic=True, backend="eager" if bench.is_small else "inductor")
            return made

        plain = partial(measured, partial(dure_trainer, kind, bench.device), bench.device)
        ways = {
            f"{name}, compiled": partial(measured, make, bench.device, warm_up=1 if bench.is_small else 12),
            f"{name}, not compiled": plain,
        }
        yield from in_turn(bench, ways, repeats=1)


def packing(bench: Bench) -> Iterator[Row]:
    """Train a small decoder-only model with packed and with padded rows."""
    if find_spec("trainables.causal") is None:
        raise SkippedPartError("this dure has no trainables.causal")
    kind = bench.kind("Llama")
    ways = {
        name: partial(measured, partial(packing_trainer, kind, bench.device, packs), bench.device)
        for name, packs in (("packed", True), ("padded", False))
    }
    yield from in_turn(bench, ways)


def batch_sizes(bench: Bench) -> Iterator[Row]:
    """Train mT5 with 1, 2, 4 … rows of full length at once, until memory or time is over."""
    size, longest = 1, 0.0
    while size <= (2 if bench.is_small else 4096):
        if bench.left < 1.5 * longest:
            yield {"case": f"{size} rows", "note": "no time was left: larger ones may fit"}
            return
        kind = bench.kind("mT5-base").at_full_length(size)
        make = partial(dure_trainer, kind, bench.device, sections={"training": {"on_oom": "error"}})
        began = time.monotonic()
        (*_, row) = in_turn(bench, {f"{size} rows": partial(_for_a_second, make, bench.device)}, repeats=1)
        longest = time.monotonic() - began
        yield row
        if "tokens_per_second" not in row:
            return
        size *= 2


def _for_a_second(make: Callable[[Path], Any], device: str, seconds: float) -> Measured:
    return measured(make, device, min(1.0, seconds))


def four_bit(bench: Bench) -> Iterator[Row]:
    """Train LoRA on mT5 with its frozen weights in 4 bits and in bf16."""
    if find_spec("bitsandbytes") is None:
        raise SkippedPartError("bitsandbytes is not installed")
    kind = bench.kind("mT5-base")
    with tempfile.TemporaryDirectory() as folder:
        kind.save(Path(folder), bench.device)
        ways = {
            name: partial(measured, partial(adapted, kind, bench.device, Path(folder), in_4bit), bench.device)
            for name, in_4bit in (("LoRA on 4-bit", True), ("LoRA on bf16", False))
        }
        yield from in_turn(bench, ways)


def offload(bench: Bench) -> Iterator[Row]:
    """Train the 730M model with its optimizer in the computer's memory, the card held to 8 GB."""
    if find_spec("deepspeed") is None:
        raise SkippedPartError("deepspeed is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if bench.device == "cuda":
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, _CARD_OF_8_GB / whole))
    kind = bench.kind("Red Heart 730M").of_size(2)
    make = partial(
        dure_trainer,
        kind,
        bench.device,
        sections={"training": {"gradient_checkpointing": True}},
        deepspeed="zero2_offload",
    )
    yield from in_turn(bench, {"2 rows, ZeRO 2 offload": partial(measured, make, bench.device)}, repeats=1)


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "card": card,
    **{name: partial(against_hf, name) for name in ("mT5-base", "KoBART", "BERT-base", "Red Heart 730M")},
    "output layer": output_layer,
    "compile": compiled,
    "packing": packing,
    "batch sizes": batch_sizes,
    "4-bit": four_bit,
    "offload": offload,
}


def machine(device: str) -> dict[str, Any]:
    """Return versions and card."""
    driver = None
    if device == "cuda" and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        driver = asked.stdout.strip() or None
    return {
        "card": torch.cuda.get_device_name(0)
        if device == "cuda"
        else "CPU, in miniature: figures mean nothing",
        "memory_mb": torch.cuda.get_device_properties(0).total_memory // _MB if device == "cuda" else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver,
        "transformers": version("transformers"),
        "peft": version("peft"),
        "python": sys.version.split()[0],
    }


def main() -> None:
    """Measure the parts that are ordered."""
    order = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # trainers print their figures
    gc.freeze()  # what is imported need not be looked through before every run

    def say(**what: Any) -> None:
        out.write(f"{json.dumps(what)}\n")
        out.flush()

    ends, device, parts = time.monotonic() + order["seconds"], order["device"], order["parts"]
    if device == "cuda" and not torch.cuda.is_available():
        say(begins=parts[0], seconds=0)
        say(skipped="no CUDA device; --device cpu runs in miniature")
        return
    say(machine=machine(device))
    bench = Bench(device, order["peak"])
    for place, part in enumerate(parts):
        if part == "offload" and place and find_spec("deepspeed"):
            return  # DeepSpeed wants a process to which nobody has said yet who its workers are
        shares = [SHARES[name] for name in parts[place:]]
        seconds = (ends - time.monotonic()) * shares[0] / sum(shares)
        bench.ends = time.monotonic() + seconds
        say(begins=part, seconds=round(seconds, 1))
        try:
            for row in PARTS[part](bench):
                say(row=row)
        except SkippedPartError as reason:
            say(skipped=str(reason))
        except Exception as error:
            traceback.print_exc()
            say(skipped=_first_line(error))
            return
        say(ended=part)
        release()


if __name__ == "__main__":
    main()
