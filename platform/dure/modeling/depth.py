"""How deep in a model a parameter lies, for learning rates that fall from the head down to the embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from dure.errors import UserError
from dure.modeling.rows import NewRows


def distances_from_head(model: nn.Module) -> dict[str, int]:
    """Return for every parameter, by name, how many levels below the head it lies.

    The head, and whatever else comes after the layers, is at 0; the last of n layers at 1 and the first at n; the
    embeddings, with their norms and positions, at n + 1. A model's layers are its ``ModuleList`` with the most
    parameters. An encoder–decoder has two such stacks side by side: the first layers of both read embeddings, and
    stand at the same level when the stacks are equally high. A weight that embedding and head share is an embedding.

    Raises:
        UserError: The model has no list of layers.
    """
    layers: dict[str, int] = {}
    for root in _roots(model):
        stack = _stack(root)
        if stack is None:
            raise UserError(
                f"{type(root).__name__} has no list of layers, so the depth of its weights is not known",
                where="training.layer_lr_decay",
                expected="null for this model",
            )
        layers |= {name: len(stack) - place for name, place in _places(model, stack)}
    highest = max(layers.values())
    embeddings = {
        f"{prefix}{name}"
        for prefix, module in ((f"{name}." if name else "", module) for name, module in model.named_modules())
        if isinstance(module, nn.Embedding | NewRows) and "new_output_rows" not in prefix
        for name, _ in module.named_parameters()
    }
    found = {}
    for name, _ in model.named_parameters():
        if name in layers:
            found[name] = layers[name]
        elif name in embeddings or any(
            "embed" in part for part in name.split(".")[:-1]
        ):  # such as their norm
            found[name] = highest + 1
        else:
            found[name] = 0
    return found


def _roots(model: nn.Module) -> list[nn.Module]:
    """Return the parts of a model that have a stack of layers of their own."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(plain, PreTrainedModel) and plain.config.is_encoder_decoder:
        return [plain.get_encoder(), plain.get_decoder()]
    return [plain]


def _stack(root: nn.Module) -> nn.ModuleList | None:
    """Return the list with the most parameters; of lists inside each other the outermost comes first."""
    stacks = [module for module in root.modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(parameter.numel() for parameter in stack.parameters()) for stack in stacks]
    if not any(sizes):
        return None
    return stacks[sizes.index(max(sizes))]


def _places(model: nn.Module, stack: nn.ModuleList) -> Iterator[tuple[str, int]]:
    """Give the name of every parameter in a stack with the index of its layer."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for place, layer in enumerate(stack):
        for parameter in layer.parameters():
            yield names[id(parameter)], place
