"""What layers compute otherwise while a model trains on a CPU, faster than PyTorch and with its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from dure.modeling.attention import BY_ROWS
from dure.modeling.dropout import dropout_from_bits
from dure.modeling.replaced import replaced


class CpuLayers:
    """Lets the layers of a model attend row by row, and drop from random bits, in the steps of a training.

    What attends otherwise than by ``sdpa`` stays as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        found: list[Any] = [getattr(each, "config", None) for each in model.modules()]
        self._configs = [
            each
            for each in {id(config): config for config in found}.values()
            if getattr(each, "_attn_implementation", None) == "sdpa"
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute so in the forward and backward passes of the body."""
        with ExitStack() as during:
            during.enter_context(dropout_from_bits())
            for config in self._configs:
                during.enter_context(replaced(config, "_attn_implementation", BY_ROWS))
            yield
