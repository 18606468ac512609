"""Which number format a model computes in, and which its frozen weights are kept in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from dure.config.schema import Profile
from dure.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]

OVERFLOWS_IN_FP16 = frozenset({"t5", "mt5", "umt5", "longt5"})
"""Model types whose activations leave the range of fp16 and turn NaN: they were trained in bf16."""

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def resolve(
    asked: Literal["auto", "fp32", "bf16", "fp16"],
    profile: Profile,
    model_type: str,
    notify: Callable[[str], None],
) -> Precision:
    """Return the format to compute in.

    ``auto`` takes the profile's, except that fp16 becomes fp32 for models that overflow in it.

    Raises:
        UserError: fp16 is asked for by name where the model or the device cannot use it.
    """
    overflows = model_type in OVERFLOWS_IN_FP16
    if asked == "auto":
        if profile.precision == "fp16" and overflows:
            notify(f"{model_type} overflows in fp16 and {profile.name} has no bf16: computing in fp32")
            return "fp32"
        return profile.precision
    if asked == "fp16" and (overflows or profile.device == "cpu"):
        raise UserError(
            f"'fp16' gives NaN with {model_type}" if overflows else "'fp16' does not train on a CPU",
            where="training.precision",
            expected="auto, bf16 or fp32",
        )
    return asked


def weights_dtype(precision: Precision, *, frozen: bool) -> torch.dtype:
    """Return the format in which the base weights are loaded.

    Frozen weights only take part in the computation, so they are kept in its format. Weights that are
    trained stay in fp32: a step of the optimiser is smaller than what bf16 or fp16 resolves.
    """
    return _DTYPES[precision] if frozen else torch.float32


def computing_in(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Let models compute in a format, as training does; weights keep theirs."""
    return nullcontext() if precision == "fp32" else torch.autocast(device, _DTYPES[precision])
