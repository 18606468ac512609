"""What a study leaves, in a form that two studies can be compared by: weights, losses and scores."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dure.files import read_json_lines

TIMED = ("seconds", "_runtime", "_per_second", "_mb", "cpu_percent", "num_restarts")
"""Ends of the names of figures that tell how a run went, and not what came out."""
WEIGHTS = (
    "final_model/model.safetensors",
    "checkpoints/best_model.pt",
    "checkpoints_final/crossover_final.pth",
)


def results_of(study: Path) -> dict[str, Any]:
    """Return everything that must be the same in a study that was disturbed: by run, the loss and the learning
    rate of every step, the figures of its result, and a hash of its final weights.
    """
    found: dict[str, Any] = {}
    for run in runs_in(study):
        file = run / "metrics.jsonl"
        name = str(run.relative_to(study))
        result = run / "result.json"
        values = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
        found[name] = {
            "state": values.get("state"),
            "metrics": _untimed(values.get("metrics", {})),
            "records": [_untimed(record) for record in read_json_lines(file)],
            "weights": {part: hash_of(run / part) for part in WEIGHTS if (run / part).is_file()},
        }
    return found


def runs_in(study: Path) -> list[Path]:
    """Return the folders of all runs in a study's; what vanishes meanwhile is not met."""
    found = []
    for folder, below, files in os.walk(study):
        below[:] = [name for name in below if not name.startswith(".")]
        if "metrics.jsonl" in files:
            found.append(Path(folder))
    return sorted(found)


def hash_of(file: Path) -> str:
    """Return a hash of the tensors in a file, by name, type, shape and every bit."""
    state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    tensors = state.get("model_state", state)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.view(torch.uint8).numpy().tobytes() if tensor.dim() else tensor.numpy().tobytes()
        )
    return digest.hexdigest()


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return where two studies differ first, in words, or None."""
    if expected.keys() != found.keys():
        return f"runs {sorted(expected)} against {sorted(found)}"
    for name, values in expected.items():
        other = found[name]
        for key in ("state", "weights"):
            if values[key] != other[key]:
                return f"{name}: {key} {values[key]} against {other[key]}"
        for key, value in values["metrics"].items():
            if other["metrics"].get(key) != value:
                return f"{name}: {key} {value} against {other['metrics'].get(key)}"
        for record in values["records"]:
            if record not in other["records"]:
                alike = [each for each in other["records"] if each.keys() == record.keys()]
                again = next((each for each in alike if each["step"] == record["step"]), {})
                keys = [key for key, value in record.items() if again.get(key) != value]
                return (
                    f"{name}: step {record['step']}: {keys[0]} {record[keys[0]]} against {again.get(keys[0])}"
                )
    return None


def _untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.endswith(TIMED)}
