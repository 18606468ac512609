"""Two finished runs compared number by number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.trainer_pt_utils import safe_globals

from dure.files import read_json, read_json_lines
from dure.runs.checkpoints import AVERAGE_FILE, STATE_FILE, last_checkpoint
from dure.runs.folder import folder_at

_POSITION = ("kind", "step", "total_steps", "epoch")
_TIMES = ("seconds", "_runtime", "_per_second", "_memory_mb")
_STATES = {
    "optimizer": "optimizer.pt",
    "learning-rate schedule": "scheduler.pt",
    "scaler of fp16": "scaler.pt",
    "average of the weights": AVERAGE_FILE,
}
_SHOWN = {"loss": "training loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}
_BEST = ("global_step", "epoch", "best_metric", "best_global_step")


@dataclass(frozen=True)
class Comparison:
    """One thing of two runs."""

    what: str
    """Its name."""
    is_equal: bool
    """Whether it is the same to the last bit."""
    count: int
    """Numbers or tensors compared."""
    difference: float | None = 0.0
    """Largest difference relative to the larger of the two, 0 when equal; None where there is none to be had, such as
    between a number and its absence.
    """
    first_step: int | None = None
    """First step whose record differs."""
    digests: tuple[str, str] | None = None
    """SHA-256 of both, for weights and states."""


def compare_runs(one: Path, other: Path) -> list[Comparison]:
    """Compare the records, the final weights and the last checkpoints of two runs."""
    weights = _compared("final weights", *(_weights(folder_at(path).final_model) for path in (one, other)))
    return [*_compare_records(one, other), weights, *_compare_states(one, other)]


def _compare_records(one: Path, other: Path) -> Iterator[Comparison]:
    both = [
        {(each["kind"], each["step"], place): each for place, each in _numbered(read_json_lines(path))}
        for path in (folder_at(one).metrics, folder_at(other).metrics)
    ]
    odd = sorted(set(both[0]) ^ set(both[1]), key=lambda key: key[1])
    count = len(set(both[0]) | set(both[1]))
    yield Comparison("records", not odd, count, 0.0 if not odd else None, odd[0][1] if odd else None)
    names = {name for records in both for record in records.values() for name in record}
    for name in sorted(name for name in names if name not in _POSITION and not name.endswith(_TIMES)):
        pairs = [
            (key[1], both[0][key].get(name), both[1][key].get(name))
            for key in both[0]
            if key in both[1] and (name in both[0][key] or name in both[1][key])
        ]
        unequal = [pair for pair in pairs if pair[1] != pair[2]]
        sizes = [_difference(first, second) for _, first, second in unequal]
        known = [size for size in sizes if size is not None]
        yield Comparison(
            _SHOWN.get(name, name),
            not unequal,
            len(pairs),
            max(known, default=0.0) if len(known) == len(sizes) else None,
            min((step for step, *_ in unequal), default=None),
        )


def _numbered(records: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give records with their number among those of one kind and step: the last step is validated and tested."""
    seen: dict[tuple[str, int], int] = {}
    for record in records:
        key = (record["kind"], record["step"])
        seen[key] = seen.get(key, -1) + 1
        yield seen[key], record


def _difference(one: Any, other: Any) -> float | None:
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in (one, other)):
        return None
    return float(abs(one - other) / max(abs(one), abs(other)))


def _weights(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    for path in sorted([*folder.glob("*.bin"), *folder.glob("*.pt")]):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        found |= loaded if isinstance(loaded, dict) else {}
    return found


def _compare_states(one: Path, other: Path) -> Iterator[Comparison]:
    found = (last_checkpoint(folder_at(path).checkpoints) for path in (one, other))
    last = [each for each in found if each is not None]
    if len(last) < 2:
        yield Comparison("last checkpoint", not last, 0, None)
        return
    for what, name in _STATES.items():
        files = [each / name for each in last]
        if any(file.is_file() for file in files):
            yield _compared(what, *({} if not file.is_file() else _loaded(file) for file in files))
    yield _compared("random numbers of every worker", *map(_random_states, last))
    yield _compared("best metric, early stopping", *map(_best, last))


def _loaded(file: Path) -> Any:
    with safe_globals():  # numpy's random state, which the trainer saves
        return torch.load(file, map_location="cpu", weights_only=True)


def _random_states(checkpoint: Path) -> dict[str, Any]:
    found = {}
    for file in sorted(checkpoint.glob("rng_state*.pth")):
        state = dict(_loaded(file))
        # Libraries draw from Python's own when they are first imported; training never does.
        state.pop("python", None)
        found[file.name] = state
    return found


def _best(checkpoint: Path) -> dict[str, Any]:
    state = read_json(checkpoint / STATE_FILE, what="state of a trainer")
    return {
        **{key: state[key] for key in _BEST},
        "callbacks": json.dumps(state["stateful_callbacks"], sort_keys=True),
    }


def _compared(what: str, one: Any, other: Any) -> Comparison:
    flat = [dict(_leaves(value)) for value in (one, other)]
    digests = (_digest(flat[0]), _digest(flat[1]))
    names = flat[0].keys() | flat[1].keys()
    difference: float | None = 0.0
    if digests[0] != digests[1]:
        sizes = [_distance(flat[0].get(name), flat[1].get(name)) for name in names]
        known = [size for size in sizes if size is not None]
        difference = max(known) if len(known) == len(sizes) else None
    return Comparison(what, digests[0] == digests[1], len(names), difference, digests=digests)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{name}/{place}")
    else:
        yield name, torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def _digest(leaves: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(leaves):
        value = leaves[name]
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _distance(one: Any, other: Any) -> float | None:
    """Return how far two leaves lie apart, relative to the largest number in them."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and one.shape == other.shape:
        if not one.numel() or torch.equal(one, other):
            return 0.0
        first, second = one.double(), other.double()
        largest = float(torch.maximum(first.abs(), second.abs()).max())
        return float((first - second).abs().max()) / largest
    if one == other:
        return 0.0
    return _difference(one, other)
