"""The exponential moving average of a model's weights while it trains (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dure.modeling.shards import compute_with, cut, is_shared_out, join, part_of, put, whole_weights
from dure.modeling.weights import STATE, read_weights, trained_tensors, write_weights


class WeightAverage:
    """The average of the trained parameters, kept beside them in fp32.

    After step t, counted from 0, it is ``d * average + (1 - d) * weights`` with ``d = min(decay, (1 + t) / (10 + t))``:
    the warm-up of TensorFlow's ``ExponentialMovingAverage``, without which a short training would end in the
    weights that it began with. At 0.999 the full decay is reached at step 8,990.

    Frozen parameters and buffers are the model's own. A weight that several layers share is averaged once. The model is
    on its device, and not yet wrapped for several workers.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.num_updates = 0
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().to(torch.float32, copy=True) for name, p in self._trained.items()}

    def share_out(self) -> None:
        """Keep this worker's part of the average only, now that DeepSpeed has shared out the weights."""
        for name, parameter in self._trained.items():
            if is_shared_out(parameter):
                self._average[name] = cut(parameter, self._average[name])

    @torch.no_grad()
    def update(self) -> None:
        """Take up the weights of an optimiser step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, parameter in self._trained.items():
            average = self._average[name]
            average.lerp_(part_of(parameter).to(average.device), 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model compute with the average inside a ``with``; fp32 weights are not copied for it.

        Collective when weights are shared out: they are written over then, and written again from their fp32 parts.
        """
        shared_out = {name: p for name, p in self._trained.items() if is_shared_out(p)}
        raw = {name: p.data for name, p in self._trained.items() if name not in shared_out}
        try:
            for name in raw:
                parameter = self._trained[name]
                parameter.data = self._average[name].to(parameter.dtype)
            for name, parameter in shared_out.items():
                compute_with(parameter, join(parameter, self._average[name]))
            yield
        finally:
            for name, data in raw.items():
                self._trained[name].data = data
            for parameter in shared_out.values():
                compute_with(parameter, join(parameter, part_of(parameter)))

    @contextmanager
    def in_place_of_weights(self, *, keep: bool) -> Iterator[None]:
        """Let the model hold the average inside a ``with``, whole and to be saved; collective.

        Only a worker that wants to ``keep`` it has any use of the model inside.
        """
        if not any(is_shared_out(p) for p in self._trained.values()):
            with self.applied():
                yield
            return
        averages = {id(p): self._average[name] for name, p in self._trained.items()}

        def part(parameter: nn.Parameter) -> torch.Tensor:
            return averages[id(parameter)] if id(parameter) in averages else part_of(parameter)

        with whole_weights(self.model, keep=keep, part=part):
            yield

    @torch.no_grad()
    def take(self) -> None:
        """Make the average the weights of the model, for good; collective when they are shared out."""
        for name, parameter in self._trained.items():
            put(parameter, join(parameter, self._average[name]))

    def state(self) -> dict[str, Any]:
        """Return what :meth:`save` writes of a model that is not shared out, as it is where the model is."""
        with self.applied():
            return {STATE: trained_tensors(self.model), "num_updates": self.num_updates}

    def save(self, path: Path, *, is_main: bool = True) -> None:
        """Write the averaged model as ``save_weights`` does, with ``num_updates``.

        All workers call this when weights are shared out among them; one of them ``is_main`` and writes.
        """
        with self.in_place_of_weights(keep=is_main):
            if is_main:
                write_weights(self.model, path, {"num_updates": self.num_updates})

    def load(self, path: Path) -> None:
        """Continue from what :meth:`save` wrote.

        Raises:
            UserError: The file is no such file, or of another model.
        """
        saved = read_weights(self.model, path)
        self.num_updates = saved["num_updates"]
        for name, parameter in self._trained.items():
            self._average[name].copy_(cut(parameter, saved[STATE][name]))
