"""The exponential moving average of a model's weights while it trains (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from dure.modeling.weights import STATE, read_weights, save_weights


class WeightAverage:
    """The average of the trained parameters, kept beside them in fp32.

    After step t, counted from 0, it is ``d * average + (1 - d) * weights`` with ``d = min(decay, (1 + t) / (10 + t))``:
    the warm-up of TensorFlow's ``ExponentialMovingAverage``, without which a short training would end in the
    weights that it began with. At 0.999 the full decay is reached at step 8,990.

    Frozen parameters and buffers are the model's own. A weight that several layers share is averaged once.

    Args:
        model: The model as it is trained, on its device, before it is wrapped for several workers.
        decay: Part of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.num_updates = 0
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().to(torch.float32, copy=True) for name, p in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take up the weights of an optimiser step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, parameter in self._trained.items():
            self._average[name].lerp_(parameter.detach().float(), 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with the average inside a ``with``; fp32 weights are not copied for it."""
        raw = {name: parameter.data for name, parameter in self._trained.items()}
        try:
            for name, parameter in self._trained.items():
                parameter.data = self._average[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self._trained.items():
                parameter.data = raw[name]

    @torch.no_grad()
    def take(self) -> None:
        """Make the average the weights of the model, for good."""
        for name, parameter in self._trained.items():
            parameter.copy_(self._average[name])

    def save(self, path: Path) -> None:
        """Write the averaged model as ``save_weights`` does, with ``num_updates``."""
        with self.applied():
            save_weights(self.model, path, {"num_updates": self.num_updates})

    def load(self, path: Path) -> None:
        """Continue from what :meth:`save` wrote.

        Raises:
            UserError: The file is no such file, or of another model.
        """
        saved = read_weights(self.model, path)
        self.num_updates = saved["num_updates"]
        for name, average in self._average.items():
            average.copy_(saved[STATE][name])
