"""Which layers get an adapter: those that are named, or all linear ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from rapidfuzz import fuzz, process
from torch import nn
from transformers import PreTrainedModel

from dure.errors import UserError

ALL_LINEAR = "all-linear"
"""The target that is every linear layer but the output layer, whatever an architecture calls them."""


def matches(name: str, target: str) -> bool:
    """Whether peft gives module ``name`` an adapter for ``target``."""
    return name == target or name.endswith(f".{target}")


def checked_targets(
    model: PreTrainedModel, targets: Sequence[str], trained_whole: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the targets as peft takes them, each once; :data:`ALL_LINEAR` is the names of its layers.

    Modules that are ``trained_whole`` need no adapter, and are none of those.

    Raises:
        UserError: A target matches no layer that can have an adapter.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
    found: list[str] = []
    for target in targets:
        if target == ALL_LINEAR:
            found += _all_linear(model, layers, trained_whole)
        elif any(matches(name, target) for name in layers):
            found.append(target)
        else:
            raise _unmatched(model, layers, target)
    return tuple(dict.fromkeys(found))


def _all_linear(model: PreTrainedModel, layers: Sequence[str], trained_whole: Sequence[str]) -> list[str]:
    """Return the last parts of the names of all linear layers; whole names where a layer that is none has that part too."""
    output = model.get_output_embeddings()
    chosen = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not output
        and not any(
            matches(part, whole)
            for part in accumulate(name.split("."), "{}.{}".format)
            for whole in trained_whole
        )
    }
    last = {name: name.rpartition(".")[2] for name in layers}
    others = {last[name] for name in layers if name not in chosen}
    return [name if last[name] in others else last[name] for name in layers if name in chosen]


def _unmatched(model: PreTrainedModel, layers: Sequence[str], target: str) -> UserError:
    distinct = sorted({name.rpartition(".")[2] for name in layers})
    similar = [name for name in distinct if name.startswith(target)] or [
        match
        for match, _, _ in process.extract(target, distinct, scorer=fuzz.ratio, score_cutoff=60, limit=3)
    ]
    return UserError(
        f"'{target}' matches no layer of {type(model).__name__}",
        where="lora.targets",
        expected=f"{ALL_LINEAR}, or any of {', '.join(distinct)}",
        hint=f"{', '.join(similar)} in place of {target}" if similar else None,
    )
