"""Dropout of a model that trains on a CPU, from random bits; and what that on CUDA keeps, for a trace.

PyTorch draws a number of double precision for every element, one after the other, which takes a fifth of the steps of a
small model. Sixteen random bits say as well whether an element is dropped: four of them come with one draw, and what they
are compared with is rounded to a 65,536th. What is kept is scaled by that rounded share, so that the mean stays.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch.nn import functional

from dure.modeling.replaced import replaced

_LEVELS = 2**16
_PER_DRAW = 4
"""Elements that the 64 bits of one draw decide on."""
_own = functional.dropout


def dropout_from_bits() -> AbstractContextManager[None]:
    """Let what calls ``torch.nn.functional.dropout``, as ``nn.Dropout`` does, drop so while the body runs."""
    return replaced(functional, "dropout", _dropout)


def fused_dropout() -> AbstractContextManager[None]:
    """Let dropout keep for the backward pass what its kernel on CUDA keeps: a byte for every element."""
    return replaced(functional, "dropout", _fused)


def dropout_factors(like: torch.Tensor, p: float) -> torch.Tensor:
    """Return what the elements of a tensor on the CPU are multiplied with: 0 where they are dropped, else 1 / (1 - p).

    It is of the same shape and type, and drawn with PyTorch's random state; ``p`` is below 1.
    """
    number = like.numel()
    draws = torch.empty(-(-number // _PER_DRAW), dtype=torch.int64).random_(-(2**63), None)
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    factors = draws.view(torch.int16)[:number].to(torch.float32)
    factors = factors.ge_(dropped - _LEVELS // 2).mul_(_LEVELS / (_LEVELS - dropped))
    return factors.view(like.shape).to(like.dtype)


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Drop as ``torch.nn.functional.dropout`` does, whose arguments these are."""
    if not training or not 0 < p < 1 or input.device.type != "cpu":
        return _own(input, p, training, inplace)
    factors = dropout_factors(input, p)
    return input.mul_(factors) if inplace else input * factors


def _fused(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    if not training or not 0 < p < 1 or inplace:
        return _own(input, p, training, inplace)
    dropped: torch.Tensor = torch.native_dropout(input, p, True)[0]
    return dropped
