"""The head of a classifier: what it is made of, and that it is trained whole."""

from __future__ import annotations

from collections.abc import Sequence

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel


def starting_at_random(model: PreTrainedModel, untaught: Sequence[str]) -> list[str]:
    """Return the modules of a classifier that start at random: the head, and those of ``untaught`` weights."""
    heads = [name for name, module in model.named_children() if _is_head(model, module)]
    others = {name.rpartition(".")[0] for name in untaught if name.partition(".")[0] not in heads}
    return [*heads, *sorted(others)]


def classifier_modules(model: PreTrainedModel | PeftModel) -> dict[str, tuple[str, ...]]:
    """Return ``encoder`` and ``head`` of a classifier with the prefixes of their parameters' names."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    inside = next(f"{name}." if name else "" for name, module in model.named_modules() if module is plain)
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, module in plain.named_children():
        if any(True for _ in module.parameters()):
            names[_is_head(plain, module)].append(f"{inside}{name}.")
    return {"encoder": tuple(names[False]), "head": tuple(names[True])}


def _is_head(model: PreTrainedModel, module: nn.Module) -> bool:
    """Whether a child of a classifier is trained weights beside the encoder."""
    return module is not model.base_model and any(True for _ in module.parameters())
