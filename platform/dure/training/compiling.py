"""``training.compile``: the layers of a model compiled for its training steps.

Layers are compiled, and not the whole model: those of a kind share their graphs, so that a model of 24 layers compiles as
long as one of 2, and what a model decides by looking at its data (whether a mask hides anything) or keeps in pieces (its
output layer) stays outside. Graphs hold for all lengths. Nothing of it is in the model between the steps: validation,
checkpoints and exports see plain layers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch._dynamo import config as tracing
from torch._dynamo.callback import callback_handler
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch.fx.experimental import _config as symbols
from transformers.modeling_layers import GradientCheckpointingLayer

from dure.config.schema import Experiment, Profile
from dure.errors import RunError, UserError
from dure.events import Notify
from dure.modeling.cpu_layers import CpuLayers
from dure.modeling.replaced import replaced
from dure.training.arguments import kernels_of
from dure.training.compiler import OFF, check_compile, check_compiler

_MOST_GRAPHS = 64
"""Graphs of a kind of layer; from then on what has none runs as it is."""
_NO_CACHE: Mapping[str, Any] = {"past_key_values": None, "layer_past": None, "use_cache": False}
"""What layers are told of the cache of generated text, in which every layer would have a graph of its own."""


class CompiledLayers:
    """The layers of a model, which compute by their graphs while :meth:`applied` lasts.

    Compiling happens when a layer first meets a batch that its graphs do not fit: with a mask or without one, or of a
    single row. The model is on its device, and not yet wrapped for several workers.

    Raises:
        UserError: The model has no layers that are known as such.
    """

    def __init__(self, model: nn.Module, notify: Notify, backend: str = "inductor") -> None:
        torch._dynamo.reset()  # Graphs of models that this process trained before would count as this one's.
        self._layers = [*_layers(model)]
        if not self._layers:
            raise UserError(
                f"{type(model).__name__} has no layers as transformers builds them, and those are what is compiled",
                where="training.compile",
                expected=OFF,
            )
        self._forwards: list[Callable[..., Any]] = [
            _without_cache(torch.compile(layer.forward, dynamic=True, backend=backend))
            for layer in self._layers
        ]
        self._notify = notify
        self._limit = _Limit()
        self.num_graphs = 0
        """Graphs so far."""
        self.seconds = 0.0
        """What compiling took."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the layers compute by their graphs while the body runs, its backward pass included.

        Raises:
            RunError: A layer cannot be compiled.
        """
        graphs, seconds = _num_graphs(), self.seconds
        # Where two sizes are the same in the first batch by chance, they are still two sizes.
        with (
            tracing.patch(recompile_limit=_MOST_GRAPHS, optimize_ddp=False),
            symbols.patch(use_duck_shape=False),  # type: ignore[attr-defined]
            self._timed(),
            self._limit.watched(),
            ExitStack() as during,
        ):
            for layer, forward in zip(self._layers, self._forwards, strict=True):
                during.enter_context(replaced(layer, "forward", forward))
            try:
                yield
            except TorchDynamoException as error:
                reason = " ".join(str(error).split())[:300]
                raise RunError(
                    f"a layer cannot be compiled ({type(error).__name__}: {reason}); set {OFF}"
                ) from None
        added = _num_graphs() - graphs
        if added:
            self.num_graphs += added
            self._notify(
                f"training.compile: {added} graph(s) for {len(self._layers)} layers took {self.seconds - seconds:.1f} s, "
                f"{self.num_graphs} in all"
            )
        if self._limit.is_news():
            self._notify(
                f"training.compile: a layer has {_MOST_GRAPHS} graphs, the most there may be; what they do not fit runs "
                f"uncompiled from here on ({OFF} may be faster)"
            )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Add what compiling takes to :attr:`seconds`."""
        began = 0.0

        def begin(_: Any) -> None:
            nonlocal began
            began = time.perf_counter()

        def end(_: Any) -> None:
            self.seconds += time.perf_counter() - began

        callback_handler.register_start_callback(begin)
        callback_handler.register_end_callback(end)
        try:
            yield
        finally:
            callback_handler.remove_start_callback(begin)
            callback_handler.remove_end_callback(end)


class _Limit(logging.Filter):
    """Learns from torch's own warning, the only sign of it, that no more graphs are made, and keeps it off the screen."""

    def __init__(self) -> None:
        super().__init__()
        self._is_reached = self._is_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Take in one record."""
        is_it = str(record.msg).startswith("torch._dynamo hit config.")
        self._is_reached |= is_it
        return not is_it

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen while the body runs."""
        log = logging.getLogger("torch._dynamo.convert_frame")
        log.addFilter(self)
        try:
            yield
        finally:
            log.removeFilter(self)

    def is_news(self) -> bool:
        """Return whether it is reached, once."""
        is_news = self._is_reached and not self._is_told
        self._is_told |= self._is_reached
        return is_news


def layers_of(
    experiment: Experiment, profile: Profile, model: nn.Module, notify: Notify
) -> CompiledLayers | CpuLayers | None:
    """Return what the layers of a model compute by in a step, where not by themselves: their graphs, or ways of a CPU.

    Raises:
        UserError: As :func:`check_compile`, :func:`check_compiler` and :class:`CompiledLayers`.
    """
    if experiment.training.compile:
        check_compile(experiment, profile)
        check_compiler(profile.device)
        return CompiledLayers(model, notify)
    return CpuLayers(model) if kernels_of(experiment, profile) == "cpu" else None


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Give the layers of a model, the outermost where they are inside each other."""
    if isinstance(module, GradientCheckpointingLayer):
        yield module
        return
    for child in module.children():
        yield from _layers(child)


def _without_cache(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer's forward pass that keeps nothing for generated text, as transformers does it in checkpointing."""

    def without_cache(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs | {name: off for name, off in _NO_CACHE.items() if name in kwargs})

    return without_cache


def _num_graphs() -> int:
    return int(counters["stats"]["unique_graphs"])
