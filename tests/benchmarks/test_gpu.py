"""The script for a GPU works where it has none, with what training needs and nothing else, and no part loses another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from transformers import BertConfig

from tests.benchmarks.gpu import SHARES, Found, Worker, follow, shown
from tests.benchmarks.gpu_models import MODELS
from tests.benchmarks.gpu_training import useful_flops

ABSENT = (
    *("ray", "optuna", "deepspeed", "bitsandbytes", "wandb", "kiwipiepy"),
    *("evaluate", "jinja2", "matplotlib", "scipy", "sentencepiece", "sklearn", "typer"),
)
"""What dure needs elsewhere, and the script does not list."""


@pytest.mark.slow
@pytest.mark.heavy
def test_it_runs_in_miniature_without_anything_optional(tmp_path) -> None:
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"
    (tmp_path / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    report = json.loads(ended.stdout)
    assert report["command"] == "python -m tests.benchmarks.gpu --device cpu"
    assert report["machine"]["torch"]
    assert report["machine"]["card"].startswith("CPU")
    # Some dures have no decoder-only models to pack.
    assert {"4-bit", "offload"} <= set(report["skipped"]) <= {"4-bit", "offload", "packing"}, report[
        "skipped"
    ]
    rows = {(row["part"], row["case"]): row for row in report["results"]}
    for part in ("mT5-base", "KoBART", "BERT-base", "Red Heart 730M"):
        dure, other = rows[part, "dure"], rows[part, "Hugging Face"]
        assert dure["ratio"] == pytest.approx(dure["tokens_per_second"] / other["tokens_per_second"])
        peak = rows["card", "matrix product"]["tflops"] * 1e12
        reached = dure["tokens_per_second"] * dure["flops_per_token"] / peak
        assert dure["share_of_peak"] == pytest.approx(reached)
        assert 0 < reached < 2
        assert 0 <= dure["padding"] < 0.5
        assert dure["foretold_mb"] > 0
    ways = [rows["output layer", f"mT5-base, {way}"]["foretold_mb"] for way in ("in chunks", "whole")]
    assert ways[0] == ways[1], "the two ways train models of different sizes"
    measured = {part for part, _ in rows}
    assert measured == set(SHARES) - set(report["skipped"])
    assert all("note" in row or row["tokens_per_second"] > 0 for row in rows.values()), rows
    for part in SHARES:
        assert part in ended.stderr


def test_a_part_that_takes_its_process_down_loses_only_itself() -> None:
    said = [
        {"machine": {"card": "made up"}},
        {"begins": "card", "seconds": 5}, {"row": {"case": "matrix product", "tflops": 3.0}}, {"ended": "card"},
        {"begins": "mT5-base", "seconds": 5}, {"row": {"case": "dure", "tokens_per_second": 10.0}},
    ]  # fmt: skip
    script = f"import os\nprint('what a package prints')\nfor line in {[json.dumps(each) for each in said]}:\n    print(line, flush=True)\nos._exit(7)"
    found = Found()
    left = follow(Worker([sys.executable, "-c", script]), ["card", "mT5-base", "KoBART"], found)
    assert left == ["KoBART"]
    assert found.skipped == {"mT5-base": "its process ended with code 7"}
    assert found.peak == 3.0
    assert found.results["mT5-base", "dure"]["tokens_per_second"] == 10.0
    assert shown(found, 1.0).row_count == 3


def test_a_process_that_cannot_start_is_not_started_for_every_part() -> None:
    found = Found()
    assert follow(Worker([sys.executable, "-c", "raise SystemExit(3)"]), ["card", "KoBART"], found) == []
    assert found.skipped == dict.fromkeys(("card", "KoBART"), "its process ended with code 3")


def test_a_part_that_hangs_is_ended(monkeypatch) -> None:
    monkeypatch.setattr("tests.benchmarks.gpu._GRACE", 0.5)
    script = 'import time\nprint(\'{"begins": "card", "seconds": 0}\', flush=True)\ntime.sleep(100)'
    found, began = Found(), time.monotonic()
    assert follow(Worker([sys.executable, "-c", script]), ["card", "KoBART"], found) == ["KoBART"]
    assert "within its time" in found.skipped["card"]
    assert time.monotonic() - began < 60


def test_every_way_trains_the_same_model_of_the_size_it_is_called_by() -> None:
    sizes = {"mT5-base": 582.4, "KoBART": 123.9, "BERT-base": 110.6, "Red Heart 730M": 729.2}
    for name, millions in sizes.items():
        kind = MODELS[name](False)
        built = [sum(weights.numel() for weights in kind.build("meta").parameters()) for _ in range(2)]
        assert built[0] == built[1], name
        assert built[0] / 1e6 == pytest.approx(millions, abs=0.05), name


def test_flops_of_a_token_are_those_of_its_matrix_products() -> None:
    kind = MODELS["BERT-base"](True)
    width, inner, layers = 32, 64, 2
    config = BertConfig(
        vocab_size=8000, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=4, num_labels=7, attn_implementation="eager",
    )  # fmt: skip
    kind = replace(kind, config=config)
    lengths = np.sort(kind.dataset()["length"][:])[np.linspace(0, kind.num_rows - 1, 8).astype(int)]
    # A product costs two operations, and twice as much again backward; the head reads one position.
    weights = layers * (4 * width**2 + 2 * width * inner)
    attention = layers * 2 * width * lengths**2
    expected = 6 * (weights * lengths + attention + width**2 + 7 * width).sum() / lengths.sum()
    assert useful_flops(kind, "cpu", 8) == pytest.approx(expected, rel=1e-9)
