"""Attention of a model that trains on a CPU, row by row where PyTorch passes over the scores of a whole batch many times.

PyTorch has a kernel for CPUs that never holds a matrix of scores, but it knows no bias that learns (T5 and its kin add one)
and no dropout. There it computes product, bias, mask, softmax and dropout one after the other, each for all rows, and looks
for rows in which all is masked. :data:`BY_ROWS` computes the same numbers for as many rows at a time as stay in the
cache of a core, and keeps what PyTorch keeps: the weights, and what was dropped of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dure.modeling.dropout import dropout_factors

BY_ROWS = "sdpa_by_rows"
"""What transformers calls it, as it calls PyTorch's ``sdpa``."""
_CACHED = 2**18
"""Scores that are computed at a time, 1 MiB of them."""


def no_cache(model: nn.Module) -> dict[str, bool]:
    """Return the argument by which an encoder–decoder keeps no keys and values for text to follow; none for others."""
    config: Any = getattr(model, "config", None)
    keeps = getattr(config, "is_encoder_decoder", False) and getattr(config, "use_cache", False)
    return {"use_cache": False} if keeps else {}


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers does with ``sdpa``, by rows where PyTorch's kernel could not.

    Query, key and value are of shape (rows, heads, positions, width), what is returned of shape (rows, queries, heads,
    width). The mask is true where a query sees a key, shape (rows or 1, heads or 1, queries, keys); the bias is added to
    the scores, shape (1, heads, queries, keys).
    """
    if not _is_by_rows(query, key, attention_mask, position_bias, dropout):
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask,
            dropout=dropout, scaling=scaling, is_causal=is_causal, position_bias=position_bias, **options,
        )  # fmt: skip
    num_rows, _, num_queries, width = query.shape
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and is_causal and num_queries > 1:
        attention_mask = torch.ones(1, 1, num_queries, key.shape[2], dtype=torch.bool).tril()
    if attention_mask is not None:
        hidden = torch.where(attention_mask, 0.0, torch.finfo(query.dtype).min)
        attention_mask = hidden.expand(num_rows, -1, -1, -1)
    scale = width**-0.5 if scaling is None else scaling
    attend: Any = _ByRows.apply
    return attend(query, key, value, position_bias, attention_mask, scale, dropout).transpose(1, 2), None


def _is_by_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    bias: torch.Tensor | None,
    dropout: float,
) -> bool:
    """Return whether this is what PyTorch has no kernel for, on a CPU in fp32."""
    is_plain = query.device.type == "cpu" and query.dtype == torch.float32 and query.shape[1] == key.shape[1]
    is_plain = is_plain and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    is_plain = is_plain and (mask is None or (mask.dtype == torch.bool and mask.dim() == 4))
    is_plain = is_plain and (bias is None or bias.shape[0] == 1)
    return is_plain and (dropout > 0 or (bias is not None and bias.requires_grad))


class _ByRows(torch.autograd.Function):
    """Attention of some rows at a time, in its forward and in its backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        hidden: torch.Tensor | None,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        """Return the attended values, of the shape of the queries; ``hidden`` is added to the scores."""
        weights = query.new_empty(*query.shape[:3], key.shape[2])
        kept = dropout_factors(weights, dropout) if dropout > 0 else None
        found = _beside_heads(query)
        for rows, scores in _runs(weights):
            _multiply(query[rows], key[rows].mT, scores)
            if scale != 1:
                scores *= scale
            if bias is not None:
                scores += bias
            if hidden is not None:
                scores += hidden[rows]
            used = torch.softmax(scores, dim=-1, out=weights[rows])
            if kept is not None:
                used = torch.mul(used, kept[rows], out=scores)
            _multiply(used, value[rows], found[rows])
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.scale = scale
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: torch.Tensor) -> Any:
        """Return the gradients of queries, keys, values and bias."""
        query, key, value, weights, kept = ctx.saved_tensors
        for_query, for_key, for_value = map(_beside_heads, (query, key, value))
        for_bias = weights.new_zeros(1, *weights.shape[1:]) if ctx.needs_input_grad[3] else None
        for rows, slopes in _runs(weights):
            used = weights[rows] if kept is None else weights[rows] * kept[rows]
            _multiply(used.mT, given[rows], for_value[rows])
            _multiply(given[rows], value[rows].mT, slopes)
            if kept is not None:
                slopes *= kept[rows]
            slopes = torch._softmax_backward_data(slopes, weights[rows], -1, slopes.dtype)
            if for_bias is not None:
                for_bias += slopes.sum(dim=0) if len(slopes) > 1 else slopes
            if ctx.scale != 1:
                slopes *= ctx.scale
            _multiply(slopes, key[rows], for_query[rows])
            _multiply(slopes.mT, query[rows], for_key[rows])
        return for_query, for_key, for_value, for_bias, None, None, None


def _runs(weights: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Give the rows in runs whose scores stay in the cache, and the room for scores that all runs share."""
    size = max(1, _CACHED // weights[0].numel())
    room = torch.empty_like(weights[:size])
    for start in range(0, len(weights), size):
        yield slice(start, start + size), room[: len(weights) - start]


def _beside_heads(heads: torch.Tensor) -> torch.Tensor:
    """Return room for as much, (rows, heads, positions, width), that lies as layers have it: heads side by side."""
    return torch.empty_like(heads.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def _multiply(left: torch.Tensor, right: torch.Tensor, found: torch.Tensor) -> None:
    """Put products of matrices in their place; those of a single row without a copy."""
    if len(found) == 1:
        torch.bmm(left[0], right[0], out=found[0])
    else:
        found.copy_(left @ right)


AttentionInterface.register(BY_ROWS, _attention)
AttentionMaskInterface.register(BY_ROWS, sdpa_mask)
