"""What parts of a model cost to compute, by their sizes."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def target_cost(model: PreTrainedModel) -> float:
    """Return what a padded target position costs of an encoder–decoder, where one of the input costs 1.

    It is the ratio of the weights of decoder and encoder, since a position is multiplied with each of them once. The
    output layer is not counted: it is computed for real tokens only (``dure.modeling.output_layer``). A model that
    another engine runs has no parts to be weighed; there both cost the same.
    """
    if not hasattr(model, "get_decoder"):
        return 1.0
    return _size(model.get_decoder()) / max(1, _size(model.get_encoder()))


def _size(part: nn.Module) -> int:
    """Return the weights of the layers of a part, without embeddings."""
    return sum(module.weight.numel() for module in part.modules() if isinstance(module, nn.Linear))
