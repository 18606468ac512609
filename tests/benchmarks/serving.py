"""``dure serve`` under load: requests per second and latency of 1, 8 and 64 clients, batched and one text at a time.

    python -m tests.benchmarks.serving [--seconds 8] [--clients 1 8 64] [--kills 10] [--run DIR]

A BERT of 6 layers and width 256 from random weights (or the run of ``--run``) predicts Korean reviews of the embedded
corpus. Every client holds a connection and asks for one text after the other. Clients, front and replica share the
machine. Then a replica of two is killed while 8 clients ask, so many times, each time when both are ready again; and at
last 64 clients ask when the server is told to end. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
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


@dataclass
class Load:
    """What clients got."""

    seconds: list[float] = field(default_factory=list)
    """Of every request."""
    statuses: Counter[int] = field(default_factory=Counter)
    """How many had each; 0 stands for a connection that broke."""
    until: float = math.inf
    """When clients ask no more."""
    told: float = math.inf
    """When the server was told to end, after which it need not take a connection."""

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


async def _client(port: int, bodies: Sequence[bytes], load: Load, number: int) -> None:
    reader = writer = None
    while time.perf_counter() < load.until:
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
            if writer is None and started > load.told:
                return
            status, answer = 0, "connection: close"
        load.seconds.append(time.perf_counter() - started)
        load.statuses[status] += 1
        if "connection: close" in answer and writer is not None:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


async def under_load(url: str, bodies: Sequence[bytes], num_clients: int, load: Load) -> None:
    """Ask as so many clients do."""
    port = int(url.rpartition(":")[2])
    await asyncio.gather(*(_client(port, bodies, load, 7 * number) for number in range(num_clients)))


def asked_for(url: str, bodies: Sequence[bytes], num_clients: int, seconds: float) -> Load:
    """Ask for some time."""
    load = Load(until=time.perf_counter() + seconds)
    asyncio.run(under_load(url, bodies, num_clients, load))
    return load


async def with_deaths(
    served: dict[str, Any], bodies: Sequence[bytes], num_clients: int, num_deaths: int
) -> Load:
    """Ask while a replica is killed so many times, each time when all are ready, and until all are again."""
    load = Load()
    asking = asyncio.create_task(under_load(served["url"], bodies, num_clients, load))
    async with httpx.AsyncClient() as client:
        for death in range(num_deaths + 1):
            await asyncio.sleep(2)  # Ray Serve has noticed by then
            while (
                (await client.get(f"{served['url']}/health")).json().get("replicas") != served["replicas"]
                or len(replicas(served["pid"])) != served["replicas"]  # a busy machine notices later
            ):
                await asyncio.sleep(0.5)
            if death < num_deaths:
                replicas(served["pid"])[death % served["replicas"]].kill()
    load.until = 0.0
    await asking
    return load


async def to_the_end(served: dict[str, Any], bodies: Sequence[bytes], num_clients: int) -> Load:
    """Ask until the server, which is told to end after a second, takes nobody any more."""
    load = Load()
    asking = asyncio.create_task(under_load(served["url"], bodies, num_clients, load))
    await asyncio.sleep(1)
    load.told = time.perf_counter()
    os.kill(served["pid"], signal.SIGTERM)
    await asking
    while (
        psutil.Process(served["pid"]).status() != psutil.STATUS_ZOMBIE
    ):  # a second signal would end it at once
        await asyncio.sleep(0.1)
    return load


def bodies_of(texts: Sequence[str]) -> list[bytes]:
    """Return a request for each text."""
    return [json.dumps({"texts": [text]}).encode() for text in texts]


def _trained(folder: Path) -> Path:
    words = [f"rehearsal.{each}" for each in SIZES]
    command = [sys.executable, "-m", "dure", "train", "transfer_bert", "--rehearse", "--profile", "cpu"]
    subprocess.run([*command, "--output", str(folder / "run"), *words], check=True, capture_output=True)
    return folder / "run"


def _measure(run: Path, clients: Sequence[int], seconds: float, kills: int) -> list[dict[str, Any]]:
    family = load_family(load_experiment(str(run / "experiment.yaml")))
    bodies = bodies_of([row["text"] for row in family.sample("dev")])
    rows = list[dict[str, Any]]()

    def note(way: str, count: int, ask: Callable[[], Load]) -> None:
        started = time.perf_counter()
        load = ask()
        rows.append({"way": way, "clients": count, **load.row(time.perf_counter() - started)})

    for way, words in (("batched", ["--batch-size", "64"]), ("one text at a time", ["--batch-size", "1"])):
        with serving(run, *words) as served:
            asked_for(served["url"], bodies, 8, 1.0)
            for count in clients:
                note(way, count, partial(asked_for, served["url"], bodies, count, seconds))
    with serving(run, "--batch-size", "64", "--replicas", "2") as served:
        asked_for(served["url"], bodies, 8, 1.0)
        way = f"two replicas, {kills} times one killed"
        note(way, 8, lambda: asyncio.run(with_deaths(served, bodies, 8, kills)))
        note("told to end", 64, lambda: asyncio.run(to_the_end(served, bodies, 64)))
    return rows


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(asked.run or _trained(Path(folder)), asked.clients, asked.seconds, asked.kills)
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
