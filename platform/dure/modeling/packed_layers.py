"""Layers with 4-bit weights as a trace sees them: what they hold, and what they unpack whenever they are used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dure.config.schema import QuantizationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK, _SCALES_BLOCK = 64, 256
"""Numbers that share a scale, and scales that share one where they are packed too (Dettmers et al. 2023, section 3)."""
_CODE, _SCALES_CODE = 16, 256
"""Values that a packed number, and a packed scale, can have."""


class PackedLayer(nn.Module):
    """A frozen linear layer whose weights are packed, without its data.

    Args:
        layer: The layer, packed by bitsandbytes or to be packed.
        scales: Bytes of the scales, and of the tables of values.
        packs_scales: Whether the scales are packed as well.
        dtype: What it computes in; that of its input when not given.
    """

    def __init__(
        self, layer: nn.Linear, scales: int, *, packs_scales: bool, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.packs_scales, self.dtype = packs_scales, dtype
        half = -(-self.in_features * self.out_features // 2)
        self.weight = nn.Parameter(torch.empty(half, 1, dtype=torch.uint8), requires_grad=False)
        self.register_buffer("scales", torch.empty(scales, dtype=torch.uint8))
        given = layer.bias
        self.bias = (
            None
            if given is None
            else nn.Parameter(torch.empty(given.shape, dtype=given.dtype), requires_grad=given.requires_grad)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the layer as bitsandbytes does."""
        read = inputs if self.dtype is None else inputs.to(self.dtype)
        bias = None if self.bias is None else self.bias.to(read.dtype)
        given: torch.Tensor = _Unpacking.apply(read, self, bias)  # type: ignore[no-untyped-call]
        return given.to(inputs.dtype)

    def unpacked(self, like: torch.Tensor) -> torch.Tensor:
        """Return the weights as they are used, shape (out, in)."""
        numbers = self.out_features * self.in_features
        scales = like.new_empty(numbers // _BLOCK, dtype=torch.float32) if self.packs_scales else None
        weight = like.new_empty(self.out_features, self.in_features)
        del scales
        return weight


class _Unpacking(torch.autograd.Function):
    """Unpacks weights in both passes, so that neither keeps them for the other."""

    @staticmethod
    def forward(ctx: Any, read: torch.Tensor, layer: PackedLayer, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the layer's output."""
        ctx.layer = layer
        return nn.functional.linear(read, layer.unpacked(read), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of what was read and of the bias."""
        (given,) = gradients
        of_bias = given.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return given @ ctx.layer.unpacked(given) if ctx.needs_input_grad[0] else None, None, of_bias


def packed_layers(model: PreTrainedModel, packing: QuantizationConfig | None) -> dict[int, PackedLayer]:
    """Return the 4-bit layers of a model by the id of the module that each takes the place of.

    ``packing`` says how a model that was built without its weights will be packed.
    """
    found = dict[int, PackedLayer]()
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and type(layer).__name__ == "Linear4bit":
            scales = sum(each.nbytes for each in quantization_of(layer))
            state: Any = getattr(layer.weight, "quant_state")  # noqa: B009 - bitsandbytes has no types
            dtype: Any = layer.compute_dtype
            found[id(layer)] = PackedLayer(layer, scales, packs_scales=state.nested, dtype=dtype)
    if packing is None:
        return found
    for layer in _to_be_packed(model):
        blocks = -(-layer.weight.numel() // _BLOCK)
        scales = 4 * blocks
        if packing.double:
            scales = blocks + 4 * (-(-blocks // _SCALES_BLOCK)) + 4 * _SCALES_CODE + 4
        found[id(layer)] = PackedLayer(
            layer, scales + 4 * _CODE, packs_scales=packing.double, dtype=layer.weight.dtype
        )
    return found


def quantization_of(layer: nn.Module) -> list[torch.Tensor]:
    """Return the scales and tables of values that bitsandbytes keeps of a layer beside its weights."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    found = list[torch.Tensor]()
    while state is not None:
        kept = (state.absmax, state.code, state.offset)
        found += [each for each in kept if isinstance(each, torch.Tensor)]
        state = state.state2
    return found


def _to_be_packed(model: PreTrainedModel) -> Iterator[nn.Linear]:
    """Yield what bitsandbytes packs: neither what is trained, nor embeddings, nor the output layer, nor what stays fp32."""
    spared = {id(each) for each in model.parameters() if each.requires_grad}
    spared |= {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    output = model.get_output_embeddings()
    if output is not None:
        spared |= {id(each) for each in output.parameters()}
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    in_full = set(getattr(base, "_keep_in_fp32_modules", None) or ())
    for name, layer in model.named_modules():
        if (
            isinstance(layer, nn.Linear)
            and id(layer.weight) not in spared
            and not in_full & set(name.split("."))
        ):
            yield layer
