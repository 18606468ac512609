"""Whether a file of weights is whole, and of which model it is."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dure.errors import UserError, said
from dure.modeling.folders import LOST, check_length
from dure.modeling.weights import STATE, check_finite, check_torch_file
from dure.preflight.model import Shape


def safetensors_shapes(path: Path) -> dict[str, Shape]:
    """Return name → shape of the tensors of a safetensors file, after reading all of it.

    Raises:
        UserError: It is cut short, damaged, or holds numbers that are not finite.
    """
    check_length(path)
    shapes: dict[str, Shape] = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                tensor = file.get_tensor(name)
                shapes[name] = tuple(tensor.shape)
                check_finite({name: tensor}, str(path))
    except SafetensorError as error:
        raise UserError(f"the file is damaged ({error})", where=str(path), hint=LOST) from None
    return shapes


def torch_shapes(path: Path) -> tuple[dict[str, Shape], dict[str, Any]]:
    """Return name → shape of the weights in a file of ``torch.save``, and the plain facts beside them.

    Raises:
        UserError: It is not whole, holds code, or holds no weights; or numbers that are not finite.
    """
    check_torch_file(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"the file does not load as plain weights ({said(error, 120)})",
            where=str(path),
            expected="tensors and plain facts: torch.load(…, weights_only=True)",
            hint="a file with objects in it may run code when it is opened; take one that dure saved",
        ) from None
    state = saved.get(STATE, saved) if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not state or not all(torch.is_tensor(each) for each in state.values()):
        held = ", ".join(map(str, saved)) if isinstance(saved, dict) else type(saved).__name__
        raise UserError(
            f"the file holds no weights, but {held[:120] or 'nothing'}",
            where=str(path),
            expected=f"tensors by name under '{STATE}'",
        )
    check_finite(state, str(path))
    facts = {
        name: value for name, value in saved.items() if isinstance(value, int | float | str) and name != STATE
    }
    return {name: tuple(tensor.shape) for name, tensor in state.items()}, facts


def check_same_model(
    shapes: Mapping[str, Shape],
    wanted: Mapping[str, Shape],
    tied: Mapping[str, frozenset[str]],
    path: Path,
    of: str,
) -> None:
    """Check that the tensors of a file are those of a model.

    Of names that are ``tied``, each with all that stand for its tensor, one in the file is enough.

    Raises:
        UserError: They are those of another model.
    """
    differing = sorted(
        name
        for name in wanted.keys() | shapes.keys()
        if (name not in wanted and not tied.get(name))
        or (name in shapes and name in wanted and wanted[name] != shapes[name])
        or (name not in shapes and not any(other in shapes for other in tied.get(name, ())))
    )
    if not differing:
        return
    name = differing[0]
    here, there = shapes.get(name), wanted.get(name)
    how = (
        f"'{name}' is {list(here or ())} and should be {list(there or ())}"
        if here and there
        else f"'{name}' is {'too many' if there is None else 'missing'}"
    )
    raise UserError(
        f"the weights are of another model than {of}: {len(differing)} tensors differ, the first: {how}",
        where=str(path),
        hint="name the experiment that trained them",
    )
