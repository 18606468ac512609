"""``dure serve`` under load: requests per second and latency of 1, 8 and 64 clients, batched and one text at a time.

    python -m tests.benchmarks.serving [--seconds 8] [--clients 1 8 64] [--run DIR]

A BERT of 6 layers and width 256 from random weights (or the run of ``--run``) predicts Korean reviews of the embedded
corpus. Every client holds a connection and asks for one text after the other. Clients, front and replica share the
machine. At last a replica of two is killed while 8 clients ask. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from dure.config import load_experiment
from dure.family import load_family

SIZES = (
    "hidden_size=256",
    "num_layers=6",
    "num_heads=4",
    "max_steps=2",
    "max_train_rows=200",
    "max_dev_rows=8",
)
KILLED_AFTER = 0.4
"""Part of the time after which a replica is killed."""


@dataclass
class Load:
    """What clients got.

    Attributes:
        seconds: Of every request.
        statuses: How many had each; 0 stands for a connection that broke.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def row(self, wall: float) -> dict[str, Any]:
        """Return requests per second, and percentiles of milliseconds."""
        half, nearly_all = np.percentile(self.seconds, [50, 99]) * 1000
        return {
            "requests_per_second": round(len(self.seconds) / wall, 1),
            "p50_ms": round(float(half), 1),
            "p99_ms": round(float(nearly_all), 1),
            "statuses": dict(self.statuses),
        }


@contextmanager
def serving(run: Path, *words: str) -> Iterator[dict[str, Any]]:
    """Serve a run on a port that is free, and give what the command says."""
    command = [
        sys.executable,
        "-m",
        "dure",
        "serve",
        str(run),
        "--port",
        "0",
        "--json",
        "--profile",
        "cpu",
        *words,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            line = server.stdout.readline()
            if not line:
                raise RuntimeError(f"dure serve ended with {server.wait()}")
            lines.append(line)
        try:
            yield json.loads("".join(lines))
        finally:
            server.send_signal(signal.SIGTERM)
            if server.wait(60) != 0:
                raise RuntimeError(f"dure serve ended with {server.returncode}")


def replicas(pid: int) -> list[psutil.Process]:
    """Return the replicas of a server."""
    return [
        each
        for each in psutil.Process(pid).children(recursive=True)
        if "ServeReplica" in "".join(each.cmdline()[:1])
    ]


async def _client(port: int, bodies: Sequence[bytes], until: float, load: Load, number: int) -> None:
    reader = writer = None
    while time.perf_counter() < until:
        body = bodies[number % len(bodies)]
        number += 1
        started = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
            status = int(answer.split()[1])
        except (OSError, asyncio.IncompleteReadError):
            status, writer = 0, None
        load.seconds.append(time.perf_counter() - started)
        load.statuses[status] += 1
    if writer is not None:
        writer.close()


async def under_load(url: str, bodies: Sequence[bytes], num_clients: int, seconds: float) -> Load:
    """Ask as so many clients do for some time."""
    load = Load()
    port, until = int(url.rpartition(":")[2]), time.perf_counter() + seconds
    await asyncio.gather(*(_client(port, bodies, until, load, 7 * number) for number in range(num_clients)))
    return load


async def with_a_death(
    served: dict[str, Any], bodies: Sequence[bytes], num_clients: int, seconds: float
) -> Load:
    """The same, and kill a replica meanwhile."""
    asking = asyncio.create_task(under_load(served["url"], bodies, num_clients, seconds))
    await asyncio.sleep(seconds * KILLED_AFTER)
    replicas(served["pid"])[0].kill()
    return await asking


def bodies_of(texts: Sequence[str]) -> list[bytes]:
    """Return a request for each text."""
    return [json.dumps({"texts": [text]}).encode() for text in texts]


def _trained(folder: Path) -> Path:
    words = [f"rehearsal.{each}" for each in SIZES]
    command = [sys.executable, "-m", "dure", "train", "transfer_bert", "--rehearse", "--profile", "cpu"]
    subprocess.run([*command, "--output", str(folder / "run"), *words], check=True, capture_output=True)
    return folder / "run"


def _measure(run: Path, clients: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    family = load_family(load_experiment(str(run / "experiment.yaml")))
    bodies = bodies_of([row["text"] for row in family.sample("dev")])
    rows = []
    for way, words in (("batched", ["--batch-size", "64"]), ("one text at a time", ["--batch-size", "1"])):
        with serving(run, *words) as served:
            asyncio.run(under_load(served["url"], bodies, 8, 1.0))
            for count in clients:
                started = time.perf_counter()
                load = asyncio.run(under_load(served["url"], bodies, count, seconds))
                wall = time.perf_counter() - started
                rows.append({"way": way, "clients": count, **load.row(wall)})
    with serving(run, "--batch-size", "64", "--replicas", "2") as served:
        asyncio.run(under_load(served["url"], bodies, 8, 1.0))
        started = time.perf_counter()
        load = asyncio.run(with_a_death(served, bodies, 8, 2 * seconds))
        wall = time.perf_counter() - started
        rows.append({"way": "two replicas, one killed", "clients": 8, **load.row(wall)})
    return rows


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(asked.run or _trained(Path(folder)), asked.clients, asked.seconds)
    loads = [round(before, 1), round(os.getloadavg()[0], 1)]
    table = Table(
        "", "clients", "requests a second", "p50 ms", "p99 ms", "statuses", title=f"load average {loads}"
    )
    for row in rows:
        cells = (
            row[key] for key in ("way", "clients", "requests_per_second", "p50_ms", "p99_ms", "statuses")
        )
        table.add_row(*map(str, cells))
    Console(stderr=True).print(table)
    print(json.dumps({"load_average": loads, "rows": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main()
