"""The output layer of a language model in chunks: logits over all tokens and the whole vocabulary never exist at once.

Within :func:`deferred` the output layer of a model gives its input, as :class:`Projected`, which takes the place of the
logits in what the model returns. :func:`sum_over_tokens` and :func:`each_token` then compute the logits of some tokens
at a time, and only of those that have a label. Gradients are computed together with the loss, chunk by chunk, so that
nothing of a chunk is kept and nothing is computed twice.

torch 2.13 has ``torch.nn.functional.linear_cross_entropy`` for this. It is not used here: it knows neither hooks nor
adapters of the layer nor what a model does to logits afterwards, and on a CPU, where its default keeps fp32 sums, 384
tokens of a vocabulary of 60,000 took it 14 s in place of 1.0 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from dure.modeling.replaced import replaced

_CHUNK_BYTES = {"cuda": 256 * 1024**2}
"""Logits of a chunk in fp32 on a GPU, which wants large products; 32 MiB elsewhere."""
_LEAST_TOKENS = 16
Term = Callable[..., torch.Tensor]
"""Takes logits of shape (tokens, vocabulary) in fp32, one tensor for each :class:`Projected`, and the labels."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """The output layer of a model as it computes logits, also while it answers with :class:`Projected` in their place.

    As long as it does that, its hooks are off too: those that correct logits are called with the chunks.
    """

    module: nn.Module
    forward: Callable[..., Any]
    hooks: Any

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of an input."""
        with self.answering(self.forward, self.hooks):
            return self.module(hidden)  # type: ignore[no-any-return]

    @contextmanager
    def answering(self, forward: Callable[..., Any], hooks: Any) -> Iterator[None]:
        """Let the layer answer with what ``forward`` makes of its input, and what hooks make of that, in the body."""
        with replaced(self.module, "forward", forward), replaced(self.module, "_forward_hooks", hooks):
            yield


@dataclass(frozen=True, eq=False)
class Projected:
    """Logits that are not computed yet: of shape (…, vocabulary), from ``hidden`` of shape (…, width).

    What models do to all logits alike is noted and done later: adding a bias, multiplying, and the soft cap
    (``tanh``). For anything else, the whole logits are computed, and it is done to them: slower, and right.
    """

    hidden: torch.Tensor
    layer: _Layer
    after: tuple[tuple[Callable[..., torch.Tensor], Any], ...] = ()
    autocast: torch.dtype | None = None

    @property
    def is_product(self) -> bool:
        """Whether they are a matrix product and constants that are added to it, and nothing more."""
        module = self.layer.module
        return (
            type(module) is nn.Linear
            and not module._forward_hooks
            and not module._forward_pre_hooks
            and all(
                function is torch.add and isinstance(other, torch.Tensor) and not other.requires_grad
                for function, other in self.after
            )
        )

    def of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of such an input, in fp32."""
        device = hidden.device.type
        with torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None):
            logits = self.layer(hidden)
            for function, other in self.after:
                logits = function(logits) if other is None else function(logits, other)
        return logits.float()

    def whole(self) -> torch.Tensor:
        """Return all logits at once, in fp32."""
        return self.of(self.hidden)

    def chunk(self, number: int) -> tuple[Projected, ...]:
        """Cut the rows into parts, as ``torch.chunk`` does."""
        return tuple(replace(self, hidden=part) for part in self.hidden.chunk(number))

    def float(self) -> Projected:
        """Return itself: logits are computed in fp32."""
        return self

    @property
    def device(self) -> torch.device:
        """Where the logits will be."""
        return self.hidden.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the logits; accelerate asks every output of a model for it, to turn shorter ones into fp32."""
        return torch.float32

    def _then(self, function: Callable[..., torch.Tensor], other: Any = None) -> Any:
        is_for_all = other is None or not isinstance(other, torch.Tensor) or other.numel() == other.shape[-1]
        if is_for_all:
            return replace(self, after=(*self.after, (function, other)))
        return function(self.whole(), other)

    def __getitem__(self, key: Any) -> torch.Tensor:
        return self.whole()[key]

    def __add__(self, other: Any) -> Any:
        return self._then(torch.add, other)

    def __mul__(self, other: Any) -> Any:
        return self._then(torch.mul, other)

    def __truediv__(self, other: Any) -> Any:
        return self._then(torch.div, other)

    __radd__, __rmul__ = __add__, __mul__

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Put a tanh (the soft cap of logits) off, and apply every other function to the whole logits."""
        if function in (torch.tanh, torch.Tensor.tanh) and isinstance(args[0], cls):
            return args[0]._then(torch.tanh)
        given = [each.whole() if isinstance(each, cls) else each for each in args]
        return function(*given, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.whole(), name)


@contextmanager
def deferred(model: nn.Module) -> Iterator[None]:
    """Let the output layer of a model give :class:`Projected` in place of logits while the body runs.

    A model without an output layer stays as it is.
    """
    known: Any = model
    module = known.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if module is None:
        yield
        return
    layer = _Layer(module, module.forward, module._forward_hooks)

    def forward(hidden: torch.Tensor) -> Projected:
        device = hidden.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return Projected(hidden, layer, autocast=autocast)

    with layer.answering(forward, type(layer.hooks)()):
        yield


def sum_over_tokens(term: Term, logits: Sequence[Projected], labels: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``term`` over chunks of tokens, a scalar whose gradients are those of the whole.

    It can be differentiated once.

    Args:
        term: Sums over the tokens that it is given.
        logits: For the same tokens, each of shape (tokens, vocabulary); one for each argument of ``term``.
        labels: What ``term`` takes beside logits, shape (tokens,).
    """
    hidden = [each.hidden for each in logits]
    starts = range(0, len(labels), _tokens_at_once(logits[0]))
    slices = [slice(start, start + starts.step) for start in starts]
    if not torch.is_grad_enabled():
        parts = [
            term(*(each.of(h[rows]) for each, h in zip(logits, hidden, strict=True)), labels[rows])
            for rows in slices
        ]
        return torch.stack(parts).sum() if parts else hidden[0].new_zeros((), dtype=torch.float32)
    made = _Gradients(term, logits)
    total = hidden[0].new_zeros((), dtype=torch.float32)
    for rows in slices:
        total += made.add(rows, labels[rows])
    apply: Callable[..., torch.Tensor] = _WithGradients.apply
    return apply(total, [*made.sums.values()], *made.sums)


def each_token(term: Term, logits: Projected, labels: torch.Tensor) -> torch.Tensor:
    """Return what ``term`` gives for every token, shape (tokens,), computed in chunks and without gradients."""
    size = _tokens_at_once(logits)
    with torch.no_grad():
        parts = [
            term(logits.of(logits.hidden[start : start + size]), labels[start : start + size])
            for start in range(0, len(labels), size)
        ]
    return torch.cat(parts) if parts else logits.hidden.new_zeros(0, dtype=torch.float32)


def at(logits: Projected, places: torch.Tensor) -> Projected:
    """Return the logits of some tokens, shape (tokens, vocabulary), by a mask of the shape of all tokens."""
    return replace(logits, hidden=logits.hidden[places])


def _tokens_at_once(logits: Projected) -> int:
    """Return the tokens of a chunk, whose logits are of a size that suits the device."""
    with torch.no_grad():
        vocabulary = logits.of(logits.hidden.reshape(-1, logits.hidden.shape[-1])[:1]).shape[-1]
    return max(_LEAST_TOKENS, _CHUNK_BYTES.get(logits.device.type, 32 * 1024**2) // (4 * vocabulary))


class _Gradients:
    """Adds up the gradients of a term over chunks."""

    def __init__(self, term: Term, logits: Sequence[Projected]) -> None:
        self.term = term
        self.logits = logits
        self.sums: dict[torch.Tensor, torch.Tensor] = {}
        """Hidden states and parameters to their gradients as far as they are known."""
        self._products: list[_Product] | None = None
        if all(each.is_product for each in logits):
            self._products = [_Product.of(each) for each in logits]

    def add(self, rows: slice, labels: torch.Tensor) -> torch.Tensor:
        """Return the term of some tokens, and add its gradients."""
        return self._by_autograd(rows, labels) if self._products is None else self._by_hand(rows, labels)

    def _by_autograd(self, rows: slice, labels: torch.Tensor) -> torch.Tensor:
        """Add the gradients of some tokens by autograd, which works for any output layer; return the term."""
        inputs = [
            each.hidden[rows].detach().requires_grad_(each.hidden.requires_grad) for each in self.logits
        ]
        with torch.enable_grad():
            made = [each.of(chunk) for each, chunk in zip(self.logits, inputs, strict=True)]
            value = self.term(*made, labels)
        parameters = [leaf for leaf in _leaves(value) if all(leaf is not chunk for chunk in inputs)]
        wanted = [*(chunk for chunk in inputs if chunk.requires_grad), *parameters]
        found = dict(zip(wanted, torch.autograd.grad(value, wanted), strict=True)) if wanted else {}
        for each, chunk in zip(self.logits, inputs, strict=True):
            if chunk in found:
                self._sum(each.hidden)[rows] += found[chunk]
        for parameter in parameters:
            self._sum(parameter).add_(found[parameter])
        return value.detach()

    def _by_hand(self, rows: slice, labels: torch.Tensor) -> torch.Tensor:
        """Add the gradients of some tokens for plain layers, without a new matrix of weights a chunk; return the term."""
        assert self._products is not None
        chunks = [each.hidden[rows].detach() for each in self.logits]
        leaves = [
            product.logits(chunk).requires_grad_()
            for product, chunk in zip(self._products, chunks, strict=True)
        ]
        with torch.enable_grad():
            value = self.term(*leaves, labels)
        slopes = torch.autograd.grad(value, leaves)
        for each, product, chunk, slope in zip(self.logits, self._products, chunks, slopes, strict=True):
            layer: Any = each.layer.module
            slope = slope.to(product.weight.dtype)
            if each.hidden.requires_grad:
                _add_product(self._sum(each.hidden)[rows], slope, product.weight)
            if layer.weight.requires_grad:
                _add_product(self._sum(layer.weight), slope.T, chunk.to(slope.dtype))
            if layer.bias is not None and layer.bias.requires_grad:
                self._sum(layer.bias).add_(slope.sum(dim=0))
        return value.detach()

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a tensor as far as it is known, zeros at first."""
        if tensor not in self.sums:
            self.sums[tensor] = torch.zeros_like(tensor, requires_grad=False)
        return self.sums[tensor]


@dataclass(frozen=True)
class _Product:
    """A plain output layer with what is added to its logits, in the number format that it computes in."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, logits: Projected) -> _Product:
        """Return the product that gives these logits; weights are cast once for all chunks."""
        layer: Any = logits.layer.module
        dtype = logits.autocast or layer.weight.dtype
        added = [] if layer.bias is None else [layer.bias.detach()]
        added += [other.detach().reshape(-1) for _, other in logits.after]
        return cls(layer.weight.detach().to(dtype), sum(added[1:], added[0]).to(dtype) if added else None)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of an input of shape (tokens, width), in fp32."""
        return nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add a matrix product in place; the product is in the format of the factors, the sum in its own."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _leaves(value: torch.Tensor) -> list[torch.Tensor]:
    """Return the leaves that a value was computed from and that take gradients."""
    found: list[torch.Tensor] = []
    seen: set[Any] = set()
    waiting: list[Any] = [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known: handed on, times that of the value, to the tensors it was computed from."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, gradients: list[torch.Tensor], *tensors: torch.Tensor
    ) -> torch.Tensor:
        """Return the value."""
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, of_value: torch.Tensor) -> Any:
        """Give the gradients away; a second time there are none."""
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *(gradient.mul_(of_value.to(gradient.dtype)) for gradient in gradients)
