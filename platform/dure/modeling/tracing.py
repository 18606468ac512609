"""One optimiser step without its numbers: what memory it takes and what it computes, found by tracing it.

The real forward and backward pass and the real optimizer run on fake tensors, which have shapes and no data. So a
model of any size is traced in seconds. What every operator gives is counted for as long as it lives; torch's own
``MemTracker`` does the same, but takes no frozen weights and no second micro-batch. On a CPU the peak is the
allocator's (``tests/platform/modeling/test_tracing.py``). For CUDA what is asked for is replayed through a model of
PyTorch's allocator there; attention and fused kernels take workspaces that a trace on a CPU does not see.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from dure.config.schema import QuantizationConfig
from dure.data.collating import Batch, Batches
from dure.modeling.cuda_allocator import Asked, reserved
from dure.modeling.objectives import IGNORED, Objective
from dure.modeling.packed_layers import packed_layers
from dure.modeling.precision import Precision, computing_in
from dure.modeling.r_drop import r_drop_loss
from dure.modeling.replaced import replaced

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kernels = Literal["own", "cpu", "cuda"]
"""What layers compute with: PyTorch's own on a CPU, those of :class:`~dure.modeling.cpu_layers.CpuLayers`, or CUDA's."""
_ATTENTION_ON_CPUS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: 0,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: 1,
}
"""Attention that torch's own counter does not know, and the place of its query among the arguments."""
_BY_PLACES = frozenset(
    {
        torch.ops.aten.index,
        torch.ops.aten.index_put,
        torch.ops.aten.index_put_,
        torch.ops.aten._index_put_impl_,
    }
)
"""Operators whose second argument says which elements they take or put: their numbers, or a mask."""


@dataclass(frozen=True)
class StepTrace:
    """What one optimiser step takes, in bytes, and what it computes."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    """Gradients of what is trained."""
    moments: int
    """State of the optimizer."""
    average: int
    """Moving average of the weights, when there is one."""
    peak: int
    """Most bytes at a time, all of the above among them."""
    reserved: int
    """Bytes that PyTorch's allocator takes of a CUDA device for them."""
    flops: int
    """Floating-point operations of forward and backward pass over one micro-batch: those of its products of matrices
    and its attention, which all else is little beside."""

    @property
    def activations(self) -> int:
        """Bytes at the peak beyond what stays from step to step: activations, logits, workspaces."""
        return max(0, self.peak - self.weights - self.gradients - self.moments - self.average)


def trace_step(
    model: PreTrainedModel,
    batches: Batches,
    objective: Objective,
    batch: Batch,
    *,
    precision: Precision,
    checkpointing: bool = False,
    accumulates: bool = False,
    averages: bool = False,
    r_drop: float = 0.0,
    packing: QuantizationConfig | None = None,
    kernels: Kernels = "own",
) -> StepTrace:
    """Trace the training step of a model on a batch; neither of the two is touched.

    The model is ready to train, on the CPU or on the meta device; of the batch its shapes count. With ``checkpointing``
    activations are computed again in the backward pass, and where it ``accumulates`` gradients of an earlier
    micro-batch are there meanwhile; ``averages`` keeps a moving average, and an ``r_drop`` above 0 makes two passes.
    ``packing`` says how the frozen layers of a model without weights will be packed, and ``kernels`` what they compute
    with.
    """
    from dure.modeling.attention import no_cache

    # Whether a mask hides anything, and how many targets count, is asked where they still have their data.
    given = _without_idle_masks(model, batches.inputs(batches.twice(batch) if r_drop else batch))
    chosen = {each.shape: int((each != IGNORED).sum()) for each in _tensors(batches.targets(batch))}
    with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
        fake = _without_data(model, packing)
        fake.train()
        if checkpointing:
            fake.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        without_data = partial(tree_map_only, torch.Tensor, fakes.from_tensor)
        inputs, targets = without_data(given), without_data(batches.targets(batch))
        items = without_data(objective.count(batches.targets(batch)))
        trained = [parameter for parameter in fake.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        measure = partial(r_drop_loss, objective, r_drop) if r_drop else objective

        def loss() -> torch.Tensor:
            with computing_in(precision, "cpu"):
                return measure(fake(**no_cache(fake) | inputs), targets, items)

        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()  # From here on it has its state.
        if not accumulates:
            optimizer.zero_grad()
        held = [*fake.parameters(), *fake.buffers(), *_tensors(without_data(batch))]
        held += _tensors([inputs, targets, [each.grad for each in trained], list(optimizer.state.values())])
        with Operators(held, chosen) as found, _as_with_data(found):
            with _computing(fake, kernels):
                loss().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    gradients = _bytes(trained)
    average = sum(4 * each.numel() for each in trained) if averages else 0
    return StepTrace(
        weights=_bytes(fake.parameters()) + _bytes(fake.buffers()),
        gradients=gradients,
        moments=2 * gradients,
        average=average,
        peak=found.peak + average,
        reserved=reserved(found.held, found.requests) + average,
        flops=found.flops,
    )


def _computing(model: PreTrainedModel, kernels: Kernels) -> AbstractContextManager[None]:
    """Return what lets layers compute as they will in training."""
    from dure.modeling.cpu_layers import CpuLayers
    from dure.modeling.dropout import fused_dropout

    if kernels == "cpu":
        return CpuLayers(model).applied()
    return fused_dropout() if kernels == "cuda" else nullcontext()


@contextmanager
def _as_with_data(found: Operators) -> Iterator[None]:
    """Let a step on tensors without data take the memory that it takes with data.

    Layers that are computed again keep the state of the random numbers, which no operator makes. And where a model makes
    itself a mask that hides nothing, attention needs none; without data transformers does not look.
    """
    from transformers import masking_utils

    states = torch.get_rng_state

    def without_idle(ignores: Callable[..., bool]) -> Callable[..., bool]:
        def ignored(padding_mask: torch.Tensor | None, *args: Any, **kwargs: Any) -> bool:
            return ignores(None if found.is_ones(padding_mask) else padding_mask, *args, **kwargs)

        return ignored

    with ExitStack() as during:
        during.enter_context(replaced(torch, "get_rng_state", lambda: found.count(states())))
        for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
            during.enter_context(replaced(masking_utils, name, without_idle(getattr(masking_utils, name))))
        yield


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operators compute, and the bytes of all storages that live, while the body of a ``with`` runs.

    Args:
        held: Tensors that live already.
        chosen: How many elements of a mask are true, by its shape; else all.
    """

    def __init__(self, held: Iterable[Any], chosen: Mapping[torch.Size, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        """Most bytes at a time."""
        self.flops = 0
        """Floating-point operations."""
        self._chosen = chosen
        self._known, self._ones = weakref.WeakSet[Any](), weakref.WeakSet[Any]()
        self._numbers = itertools.count()
        self.requests: list[Asked] = []
        for tensor in held:
            self.count(tensor)
        self.held, self.requests = self.requests, []
        """Requests for the memory of what lives already, and those of the body, ends among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operator, and count what it gives."""
        if func._overloadpacket in _BY_PLACES:
            args = (args[0], [place for each in args[1] for place in self._places(each)], *args[2:])
        given = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.count, given)
        if func._overloadpacket is torch.ops.aten.ones or (
            func._overloadpacket is torch.ops.aten._to_copy and self.is_ones(args[0])
        ):
            self._ones.add(given.untyped_storage())
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=given))
        elif func._overloadpacket in _ATTENTION_ON_CPUS:
            query, key, value = args[_ATTENTION_ON_CPUS[func._overloadpacket] :][:3]
            forward = int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]
            # The backward pass has five products of matrices where the forward pass has two.
            self.flops += forward * 5 // 2 if _ATTENTION_ON_CPUS[func._overloadpacket] else forward
        return given

    def is_ones(self, tensor: torch.Tensor | None) -> bool:
        """Return whether a tensor was made of ones."""
        return tensor is not None and tensor.untyped_storage() in self._ones

    def count(self, tensor: Any) -> Any:
        """Count a tensor for as long as it lives, and return it."""
        storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
        if storage is not None and storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            self._now += size
            self.peak = max(self.peak, self._now)
            number = next(self._numbers)
            self.requests.append(Asked(number, size))
            weakref.finalize(storage, self._freed, number, size)
        return tensor

    def _freed(self, number: int, size: int) -> None:
        self._now -= size
        self.requests.append(Asked(number, 0))

    def _places(self, chosen: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Return element numbers as they are; for a mask those of as many elements as are true, as far as it is known."""
        if chosen is None or chosen.dtype != torch.bool:
            return (chosen,)
        number = self._chosen.get(chosen.shape, chosen.numel())
        return torch.unravel_index(torch.arange(number), chosen.shape)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _without_data(model: PreTrainedModel, packing: QuantizationConfig | None) -> PreTrainedModel:
    """Copy a model whose parameters have no data, and whose 4-bit layers unpack what has none."""
    known: dict[int, Any] = packed_layers(model, packing)
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        known[id(tensor)] = (
            nn.Parameter(empty, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else empty
        )
    return copy.deepcopy(model, known)


def _without_idle_masks(model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's inputs without masks that hide nothing.

    The models of transformers look whether a mask hides anything and build their attention's own only then; at a mask
    without data they cannot look, and build one. To them, and to them alone, no mask is the same as an idle one.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if not type(base).__module__.startswith("transformers."):
        return dict(inputs)
    return {
        name: value
        for name, value in inputs.items()
        if not (name.endswith("attention_mask") and isinstance(value, torch.Tensor) and bool(value.all()))
    }


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
