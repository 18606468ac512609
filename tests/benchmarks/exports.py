"""Every format of every family: how many rows of the validation table the export predicts alike, how fast, how large.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.exports [--rows 200] [NAME …]

Each experiment is rehearsed and exported with ``dure export --accept 0``, which predicts the rows by the run's own model
(transformers' weights in dure) and by the export. An adapter needs a checkpoint to be put on: the transformers export is
one, and adapters are trained on it for a few steps. Rows a second are of CPU time, since a machine is seldom idle. The
table goes to stderr, all records to stdout as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dure.config.loading import load_experiment
from dure.family import load_family

EXPERIMENTS = (
    "eenzeenee_t5",
    "mt5_xlsum_ultimate",
    "kobart_baseline",
    "causal_qwen",
    "causal_gemma",
    "causal_exaone",
    "preference_qwen",
    "transfer_bert",
    "kobert_emotion",
    "klue_sts",
    "red_heart_tiny",
)
_QUANTIZATIONS = {"ctranslate2": (None, "int8")}
_DURE = "import time; time.perf_counter = time.process_time; from dure.cli import main; main()"
"""The program, but that what it times is its CPU time."""


def main() -> None:
    """Export what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", default=EXPERIMENTS, metavar="NAME")
    parser.add_argument("--rows", type=int, default=200, help="validation rows")
    asked = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names:
            run = Path(folder) / name
            _train(
                run, name, "--rehearse", f"rehearsal.max_dev_rows={asked.rows}", "rehearsal.num_evaluations=1"
            )
            experiment = load_experiment(name)
            for kind in load_family(experiment).exports:
                source = (
                    run if kind != "adapter" else _with_adapters(run, has_some=experiment.lora is not None)
                )
                records += [
                    _exported(source, name, kind, quantization, asked.rows)
                    for quantization in _QUANTIZATIONS.get(kind, (None,))
                ]
    _print(records)
    print(json.dumps(records, ensure_ascii=False, indent=2))


def _train(run: Path, *words: object) -> None:
    code, said = _dure("train", *words, "--output", run, "--profile", "cpu")
    if code:
        raise SystemExit(f"{run.name}: {said}")


def _with_adapters(run: Path, *, has_some: bool) -> Path:
    """Train adapters for a few steps on a miniature that is a checkpoint by now: the transformers export of its run."""
    adapted, checkpoint = run.with_name(f"{run.name}-adapted"), run.with_name(f"{run.name}-transformers-None")
    words = ["rehearsal.enabled=false", "training.max_steps=10", "training.eval_every=10"]
    words += [] if has_some else ["lora.rank=8", "lora.alpha=16", "lora.targets=[query,value]"]
    _train(adapted, run / "experiment.yaml", *words, f"model.checkpoint={checkpoint}")
    return adapted


def _exported(run: Path, name: str, kind: str, quantization: str | None, rows: int) -> dict[str, Any]:
    target = run.with_name(f"{name}-{kind}-{quantization}")
    how = ("--quantization", quantization) if quantization else ()
    words = ("export", run, "--to", target, "--format", kind, *how, "--rows", rows, "--accept", 0, "--json")
    code, said = _dure(*words)
    found = {"experiment": name, "format": kind, "quantization": quantization}
    return found | (json.loads(said) if code == 0 else {"refused": said.strip().splitlines()[0]})


def _dure(*words: object) -> tuple[int, str]:
    """Run a command; returns its code, and what it printed, or its error."""
    command = [sys.executable, "-c", _DURE, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("dure: ")]
    return ended.returncode, ended.stdout if ended.returncode == 0 else "\n".join(errors)


def _print(records: list[dict[str, Any]]) -> None:
    table = Table("experiment", "format", "rows alike", "rows/s", "original", "faster", "MB")
    for each in records:
        kind = each["format"] + (f" {each['quantization']}" if each["quantization"] else "")
        if "refused" in each:
            table.add_row(each["experiment"], kind, each["refused"])
            continue
        agreement = each["agreement"]
        speed, original = each["rows_per_second"], each["original_rows_per_second"]
        table.add_row(
            *(each["experiment"], kind, f"{agreement['num_equal']} of {agreement['num_rows']}"),
            *(
                f"{speed:.1f}",
                f"{original:.1f}",
                f"{speed / original:.2f}×",
                f"{each['size_bytes'] / 1e6:.1f}",
            ),
        )
    Console(stderr=True, width=120).print(table)


if __name__ == "__main__":
    main()
