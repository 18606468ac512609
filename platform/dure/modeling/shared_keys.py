"""Attention to what the encoder read, computed for all beams of a row at once.

All beams of a row look at the same keys and values. transformers repeats them beam by beam; here they exist once, and the
queries of the beams stand side by side, as those of several positions would.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dure.modeling.replaced import replaced

_NAME = "sdpa_shared_by_beams"
_NEEDED = "sdpa"


def can_share(model: PreTrainedModel) -> bool:
    """Return whether the attention of a model is one that can be told apart here."""
    return bool(model.get_decoder().config._attn_implementation == _NEEDED)


def shared_keys(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Let the decoder of a model attend from more rows of queries than there are rows of keys; see above."""
    return replaced(model.get_decoder().config, "_attn_implementation", _NAME)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers does with ``sdpa``.

    Args:
        module: Whose attention it is.
        query: Shape (rows * beams, heads, 1, width).
        key: Shape (rows * beams, heads, positions, width), or without the beams.
        value: Likewise.
        attention_mask: Shape (rows, 1, 1, positions), which holds for all beams.
        options: As transformers gives them.

    Returns:
        Shape (rows * beams, 1, heads, width).
    """
    beams = len(query) // len(key)
    if beams > 1:
        query = query.view(len(key), beams, *query.shape[1:]).squeeze(3).transpose(1, 2)
    found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return (found.flatten(0, 1).unsqueeze(1) if beams > 1 else found), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
