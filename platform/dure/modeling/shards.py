"""Weights that DeepSpeed shares out among workers: each worker's part of them, and whole again.

ZeRO 1 and 2 share out the fp32 weights that the optimiser updates, and leave every worker the whole model in the
format of the computation; ZeRO 3 shares out that one too. What follows reads and writes the fp32 weights, so that
what is saved is as exact as in a run without DeepSpeed. A weight that is not shared out is its own part, so all of
it holds for any model.

Whatever is said to be collective must be called by all workers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def is_shared_out(parameter: torch.Tensor) -> bool:
    """Return whether this worker may hold only a part of a weight, in fp32 or at all."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def shape_of(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of a weight; that of a tensor under ZeRO 3 is empty between its uses."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def part_of(parameter: nn.Parameter) -> torch.Tensor:
    """Return this worker's part of a weight in fp32: flat, or whole and in shape when it is not shared out."""
    any_parameter: Any = parameter
    if hasattr(parameter, "ds_id"):
        if hasattr(parameter, "_z3_optimizer") and parameter.requires_grad:
            from deepspeed.utils import safe_get_local_fp32_param

            held: torch.Tensor = safe_get_local_fp32_param(parameter)
            return held.detach()
        partition: torch.Tensor = any_parameter.ds_tensor
        return partition.detach().float()
    if hasattr(parameter, "_hp_mapping"):
        mapping = any_parameter._hp_mapping
        return torch.empty(0) if mapping is None else mapping.get_hp_fragment().detach()
    return parameter.detach().float()


def cut(parameter: nn.Parameter, whole: torch.Tensor) -> torch.Tensor:
    """Return the part of ``whole`` that this worker holds of the parameter, as a copy in fp32."""
    any_parameter: Any = parameter
    whole = whole.detach().float()
    if hasattr(parameter, "ds_id"):
        import torch.distributed as dist

        partition = any_parameter.ds_tensor
        length = partition.ds_numel
        padded = whole.new_zeros(length * dist.get_world_size())
        padded[: whole.numel()] = whole.flatten()
        begin = length * dist.get_rank()
        return padded[begin : begin + length].to(partition.device, copy=True)
    if hasattr(parameter, "_hp_mapping"):
        mapping = any_parameter._hp_mapping
        if mapping is None:
            return torch.empty(0)
        place = mapping.lp_fragment_address
        fragment = whole.flatten().narrow(0, place.start, place.numel)
        return fragment.to(mapping.get_hp_fragment().device, copy=True)
    return whole.to(parameter.device, copy=True)


def join(parameter: nn.Parameter, part: torch.Tensor) -> torch.Tensor:
    """Return the whole tensor that all workers hold :func:`cut` parts of; collective when it is shared out."""
    any_parameter: Any = parameter
    if not is_shared_out(parameter):
        return part
    import torch.distributed as dist

    if hasattr(parameter, "ds_id"):
        part = part.to(parameter.device)
        joined = part.new_empty(part.numel() * dist.get_world_size())
        dist.all_gather_into_tensor(joined, part.contiguous())
        return joined[: any_parameter.ds_numel].view(any_parameter.ds_shape)
    joined = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
    mapping = any_parameter._hp_mapping
    if mapping is not None:
        place = mapping.lp_fragment_address
        joined.narrow(0, place.start, place.numel).copy_(part)
    dist.all_reduce(joined)
    return joined.view_as(parameter)


def compute_with(parameter: nn.Parameter, whole: torch.Tensor) -> None:
    """Let the model compute with another value, while the optimiser keeps the fp32 weights; collective."""
    with torch.no_grad():
        if not hasattr(parameter, "ds_id"):
            parameter.copy_(whole)
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(whole)


def put(parameter: nn.Parameter, whole: torch.Tensor) -> None:
    """Make a tensor the value of a trained weight, for the computation and in fp32; collective."""
    compute_with(parameter, whole)
    if hasattr(parameter, "_z3_optimizer"):
        from deepspeed.utils import safe_set_local_fp32_param

        safe_set_local_fp32_param(parameter, cut(parameter, whole))
    elif hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_set_full_fp32_param

        safe_set_full_fp32_param(parameter, whole.detach().float())


@contextmanager
def whole_weights(
    model: nn.Module,
    *,
    keep: bool,
    part: Callable[[nn.Parameter], torch.Tensor] = part_of,
    device: torch.device | str = "cpu",
) -> Iterator[None]:
    """Let a model's weights be whole fp32 tensors inside a ``with``, to be saved and not trained.

    Weights that are not shared out are left alone. Collective. Workers that do not ``keep`` them only send their parts,
    and see the model as it is; ``part`` is this worker's part of what a weight is to be.
    """
    whole: dict[int, nn.Parameter] = {}
    for parameter in model.parameters():
        if is_shared_out(parameter):
            tensor = join(parameter, part(parameter))
            if keep:
                whole[id(parameter)] = nn.Parameter(tensor.to(device), requires_grad=parameter.requires_grad)
            del tensor
    # The parameters change places and keep their tensors, which DeepSpeed has hooks on.
    changed = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and id(parameter) in whole
    ]
    try:
        for module, name, parameter in changed:
            module._parameters[name] = whole[id(parameter)]
        yield
    finally:
        for module, name, parameter in changed:
            module._parameters[name] = parameter
