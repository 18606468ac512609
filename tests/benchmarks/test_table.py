"""The one table of the benchmarks says what was measured: peers, limits, misses, and nothing that flatters."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.benchmarks.all import BENCHMARKS
from tests.benchmarks.table import Row, Spent, one_table
from tests.benchmarks.throughput import cut
from tests.benchmarks.trial_overhead import TreeCpu


def test_every_benchmark_can_be_imported():
    """Most are run by hand only, and the engine changes beneath them."""
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        if file.stem != "traps_elsewhere":  # needs a peer that is no dependency
            importlib.import_module(f"tests.benchmarks.{file.stem}")


def row(**more) -> Row:
    ways = {
        "dure": [Spent(2.0, 5.0), Spent(4.0, 5.0), Spent(2.5, 9.0)],
        "slow": [Spent(8.0, 9.0), Spent(9.0, 9.0), Spent(8.0, 9.0)],
        "fast": [Spent(3.0, 3.0), Spent(4.8, 3.0), Spent(3.0, 3.0)],
        "floor": [Spent(1.0, 1.0)] * 3,
    }
    return Row(**({"part": "train", "ways": ways, "rows": 2000, "limit": "floor", "load": 7.0} | more))


def test_the_ratio_is_to_the_best_peer_within_repeats_and_the_limit_is_no_peer() -> None:
    measured = row()
    assert measured.best_peer == "fast"
    assert measured.ratio == pytest.approx(1.2)  # the middle one of 1.5, 1.2 and 1.2
    assert measured.ratio_to("floor") == pytest.approx(0.4)
    assert (measured.cpu("dure"), measured.wall("dure"), measured.spread("dure")) == (2.5, 5.0, 2.0)
    assert row(limit=None).best_peer == "floor"


@pytest.mark.parametrize(("asked", "reached"), [(1.1, True), (1.3, False), (None, None)])
def test_what_is_missed_is_said(asked, reached) -> None:
    measured = row(asked=asked)
    assert measured.is_reached is reached
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(one_table([measured], "title"))
    shown = console.export_text()
    assert ("missed" in shown) == (reached is False)
    for word in ("train (CPU s)", "fast 3", "floor 1", "1.20×", "2,000 × 3", "7.0", "5 / 3"):
        assert word in shown


def test_a_figure_without_a_peer_is_held_against_what_is_asked() -> None:
    alone = {"dure": [Spent(0.5, 1.0)]}
    assert Row("--help", alone, 1, 0.3).is_reached is False
    assert Row("--help", alone, 1, 0.6).ratio == pytest.approx(1.2)


def test_a_row_comes_back_from_json_as_it_was() -> None:
    values = json.loads(json.dumps(row(asked=1.5).as_dict()))
    assert Row.of(values).as_dict() == row(asked=1.5).as_dict()
    assert values["best_peer"] == "fast"
    assert values["figures"]["slow"] == {"cpu": 8.0, "wall": 9.0, "spread": 1.0}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_of_the_table_can_be_started(name) -> None:
    __import__(f"tests.benchmarks.{name}")


def test_bare_loops_take_every_row_once_and_a_budget_of_tokens_gives_about_as_many_batches() -> None:
    lengths = [(7 * row) % 90 + 5 for row in range(200)]
    by_rows, by_tokens = (cut(lengths, 8, by_tokens=way) for way in (False, True))
    for batches in (by_rows, by_tokens):
        assert sorted(row for batch in batches for row in batch) == list(range(200))
    assert {len(batch) for batch in by_rows} == {8}
    assert abs(len(by_tokens) - len(by_rows)) <= 3
    budget = sum(max(lengths[row] for row in batch) * len(batch) for batch in by_rows) / len(by_rows)
    assert all(max(lengths[row] for row in batch) * len(batch) <= budget for batch in by_tokens)


def test_the_cpu_time_of_processes_that_ended_is_not_lost() -> None:
    busy = "import time; began = time.process_time()\nwhile time.process_time() - began < 1.0: pass"
    cpu = TreeCpu()
    before = cpu.look()
    cpu.start()
    subprocess.run([sys.executable, "-c", busy], check=True)
    spent = cpu.look() - before
    cpu.end()
    assert spent > 0.6
