"""Traces of training steps, kept in the cache: what is the same in all that a trace depends on is traced once.

A trial of a sweep traces what the trial before it traced, and so does a run that goes on. The key of an entry is made
of the model's structure and code, of the shapes of what its step reads and of how it is trained, and not of a name that
somebody gave. Entries are small Arrow files, compared with their hash when they are read (``dure.data.arrow_files``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import torch
from torch import nn

from dure.data.arrow_files import key_of, load_entry, written_entry
from dure.data.collating import Batch, Batches
from dure.files import hash_of
from dure.modeling.objectives import IGNORED, Objective
from dure.modeling.tracing import StepTrace, trace_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PLAIN = (bool, int, float, str, type(None))


def known_step(
    cache: Path, model: PreTrainedModel, batches: Batches, objective: Objective, batch: Batch, **how: Any
) -> StepTrace:
    """Return the trace of a training step, from the cache where one like it was traced before.

    ``cache`` is the folder of the cache; all else is as :func:`trace_step` takes it.
    """
    read = [
        batch,
        batches.inputs(batches.twice(batch) if how.get("r_drop") else batch),
        batches.targets(batch),
    ]
    key = key_of(
        [version("torch"), version("transformers"), torch.backends.cpu.get_cpu_capability()],
        sorted(_code(model, batches, objective)),
        list(_structure(model)),
        _facts([model.config.to_dict(), objective, read, how], set()),
    )
    path = cache / "traces" / f"{key}.arrow"
    entry = load_entry(path)
    if entry is not None:
        return StepTrace(**entry[0][0])
    trace = trace_step(model, batches, objective, batch, **how)
    with written_entry(path, dict) as append:
        append(pyarrow.RecordBatch.from_pylist([asdict(trace)]))
    return trace


def _code(*parts: Any) -> Iterator[str]:
    """Give the hashes of the sources of all classes that take part in a step, and of what traces it."""
    made = [*parts, *(each for part in parts if isinstance(part, nn.Module) for each in part.modules())]
    modules = {kind.__module__ for each in made for kind in type(each).__mro__}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in modules}
    for file in {*map(Path, filter(None, files)), *Path(__file__).parent.glob("*.py")}:
        yield hash_of(file)


def _structure(model: nn.Module) -> Iterator[Any]:
    """Give what is told of every module of a model without looking at its numbers."""
    numbers: dict[int, int] = {}

    def told(name: str, tensor: torch.Tensor) -> list[Any]:
        # Tied weights have one number.
        number = numbers.setdefault(id(tensor), len(numbers))
        return [
            name,
            number,
            type(tensor).__name__,
            list(tensor.shape),
            str(tensor.dtype),
            tensor.requires_grad,
        ]

    for name, module in model.named_modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        settings = {
            key: value
            for key, value in vars(module).items()
            if key != "training" and isinstance(value, (*_PLAIN, tuple))
        }
        settings["attends"] = getattr(getattr(module, "config", None), "_attn_implementation", None)
        yield [
            name,
            _name(type(module)),
            _facts(settings, set()),
            [told(*each) for each in tensors],
            [_name(each) for each in (*hooks, vars(module).get("forward"))],
        ]


def _facts(value: Any, seen: set[int]) -> Any:
    """Return what a trace can depend on in a value, as JSON data: of tensors what it reads, of objects all they hold."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        counted = int((value != IGNORED).sum())
        return [list(value.shape), str(value.dtype), counted, bool(value.all())]
    if id(value) in seen:
        return "above"
    seen = seen | {id(value)}
    if isinstance(value, Mapping):
        named = {str(name): each for name, each in value.items()}
        # Where a model lies, which a miniature does in a folder of its own, says nothing of it.
        return {name: _facts(each, seen) for name, each in named.items() if not name.endswith("name_or_path")}
    if isinstance(value, list | tuple):
        return [_facts(each, seen) for each in value]
    if isinstance(value, partial):
        return [_facts(each, seen) for each in (value.func, value.args, value.keywords)]
    held = {} if isinstance(value, nn.Module | type) else getattr(value, "__dict__", None)
    return str(value) if held is None else [_name(value), _facts(held, seen)]


def _name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
