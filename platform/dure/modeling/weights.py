"""The weights that training changes, as one file that loads without any code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dure.errors import UserError, named
from dure.files import written_beside
from dure.modeling.folders import LOST
from dure.modeling.shards import is_shared_out, put, shape_of, whole_weights

STATE = "model_state"


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return what training may have changed, as it is where the model is.

    Of a model that trains wholly that is its state dict; of one with adapters only their parameters, since the
    rest is the checkpoint that it was loaded from.

    The model must be whole: see ``dure.modeling.shards.whole_weights``.
    """
    state = model.state_dict()
    return {name: state[name].detach() for name in trained_names(model)}


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return :func:`trained_tensors` on the CPU."""
    return {name: tensor.cpu() for name, tensor in trained_tensors(model).items()}


def trained_names(model: nn.Module) -> list[str]:
    """Return the names of :func:`trained_tensors`, in the order of the state dict."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    is_whole = all(parameter.requires_grad for parameter in model.parameters())
    return [name for name in model.state_dict() if is_whole or name in trained]


def tied_parameters(model: nn.Module) -> dict[str, frozenset[str]]:
    """Return all names of every parameter that has several, by each of them."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name: frozenset(group) for group in names.values() if len(group) > 1 for name in group}


def save_weights(model: nn.Module, path: Path, about: Mapping[str, Any], *, is_main: bool = True) -> None:
    """Write the weights as :func:`write_weights` does, whether they are shared out among workers or not.

    All workers call this when they are; one of them ``is_main`` and writes.
    """
    with whole_weights(model, keep=is_main):
        if is_main:
            write_weights(model, path, about)


def write_weights(model: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    """Write :func:`trained_state` as ``model_state``, and plain facts about it, with ``torch.save``.

    The file appears whole or not at all, and loads with ``torch.load(path, weights_only=True)``.
    """
    with written_beside(path) as beside:
        torch.save({STATE: trained_state(model), **about}, beside)


def check_torch_file(path: Path) -> None:
    """Check that a file of ``torch.save`` is whole, by the checksums in it; nothing in it is executed.

    ``torch.load`` itself does not compare them, so that a changed byte would become a changed weight.

    Raises:
        UserError: It is cut short or damaged, or no such file.
    """
    if not path.is_file():
        raise UserError("the file is missing", where=str(path), expected="weights that dure saved", hint=LOST)
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begins_well = file.read(4) == b"PK\x03\x04"
        if begins_well or size == 0:
            raise UserError(
                f"the file is cut short: {size:,} bytes are there",
                where=str(path),
                expected="weights",
                hint=LOST,
            )
        raise UserError("this is no file of torch.save", where=str(path), expected="weights that dure saved")
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        broken = str(error)
    if broken is not None:
        raise UserError(
            f"the file is damaged: the checksum of '{broken}' is wrong", where=str(path), hint=LOST
        )


def check_finite(
    weights: Mapping[str, torch.Tensor], where: str, hint: str = "an earlier checkpoint"
) -> None:
    """Check that weights are numbers: with NaN among them a model predicts the same of everything, and nobody notices.

    Raises:
        UserError: One of them holds NaN or infinity.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"'{name}' holds numbers that are not finite: the training had diverged, or the file is damaged",
                where=where,
                hint=hint,
            )


def read_saved(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Return everything in a file that :func:`save_weights` wrote.

    A plain state dict, such as that of a crossover, is taken as ``model_state``.

    Raises:
        UserError: The file is no such file, or not whole.
    """
    check_torch_file(path)
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        saved = saved if STATE in saved else {STATE: saved}
        _ = {name: tensor.shape for name, tensor in saved[STATE].items()}
    except Exception as error:  # torch raises almost anything for a file that is not its own
        raise UserError(
            f"the weights cannot be loaded: {named(error, 200)}",
            where=str(path),
            expected="a file that dure saved",
        ) from None
    return saved


def read_weights(model: nn.Module, path: Path) -> dict[str, Any]:
    """Return what :func:`read_saved` does, when its weights are of a model of this kind.

    Raises:
        UserError: The file is no such file, not whole, or of another model.
    """
    saved = read_saved(path)
    shapes = {name: tensor.shape for name, tensor in saved[STATE].items()}
    tensors = dict(model.named_buffers()) | dict(model.named_parameters(remove_duplicate=False))
    wanted = {name: shape_of(tensors[name]) for name in trained_names(model)}
    differing = sorted({name for name, _ in wanted.items() ^ shapes.items()})
    if differing:
        raise UserError(
            f"the weights are of another model: {len(differing)} of {len(wanted)} tensors differ, "
            f"the first is '{differing[0]}'",
            where=str(path),
        )
    check_finite(saved[STATE], str(path))
    return saved


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a file into a model of the same kind; collective when they are shared out among workers.

    Raises:
        UserError: The file is no such file, or of another model.
    """
    state = read_weights(model, path)[STATE]
    shared_out = {name: p for name, p in model.named_parameters() if p.requires_grad and is_shared_out(p)}
    for name, parameter in shared_out.items():
        put(parameter, state[name].to(parameter.device))
    if len(shared_out) < len(state):
        tensors = dict(model.named_parameters(remove_duplicate=False))
        own = {name: value for name, value in state.items() if not is_shared_out(tensors.get(name, value))}
        model.load_state_dict(own, strict=False)
