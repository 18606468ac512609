"""What layers compute otherwise while a model trains on a CPU, faster than PyTorch and with its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from dure.modeling.attention import AttentionByRows
from dure.modeling.dropout import dropout_from_bits


class CpuLayers:
    """Lets the layers of a model attend row by row, and drop from random bits, in the steps of a training."""

    def __init__(self, model: nn.Module) -> None:
        self._attention = AttentionByRows(model)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute so in the forward and backward passes of the body."""
        with self._attention.applied(), dropout_from_bits():
            yield
