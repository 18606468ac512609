"""A model's weights put together from those of several epochs, module by module, by a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch

from dure.errors import UserError
from dure.modeling.weights import STATE, read_saved

State = dict[str, torch.Tensor]
Source = int | str
"""An epoch, or the name of other weights, such as those of a moving average."""
Recipe = Mapping[str, Mapping[Source, float]]
"""Module → source → its share in the module's weights; the shares of a module add up to 1."""

EMA = "ema"


def tied_names(state: Mapping[str, torch.Tensor]) -> list[tuple[str, ...]]:
    """Return the groups of names that stand for one and the same tensor, such as tied embeddings."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in state.items():
        if tensor.numel() and tensor.data_ptr():
            key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


class EpochWeights:
    """The weights of several epochs, as files, of which only what is looked at is read.

    The files are mapped into memory and not loaded: of a model of 730M parameters (2.9 GB in float32) with 30 epochs,
    the mixture that is built takes memory of its own, and of the files what the machine can spare.

    Args:
        files: Source → file with ``model_state``, as ``dure.modeling.weights.save_weights`` writes it.
        modules: Module → prefixes of its tensors' names; of several that fit, the longest counts.
        ties: Groups of names that the model holds as one tensor, in addition to those that the files hold so;
            a file that was written from a GPU holds them apart. ``tied_names(model.state_dict())`` tells.

    Raises:
        UserError: A file is none of these, or of another model than the others; or a tensor belongs to no module
            although it changed from epoch to epoch.
    """

    def __init__(
        self,
        files: Mapping[Source, Path],
        modules: Mapping[str, Sequence[str]],
        *,
        ties: Iterable[Sequence[str]] = (),
    ) -> None:
        if not any(isinstance(source, int) for source in files):
            raise UserError("there are no weights of any epoch", expected="files epoch_<n>.pt")
        self.files = dict(files)
        self.modules = {name: tuple(prefixes) for name, prefixes in modules.items()}
        self._states = {source: read_saved(path, mmap=True)[STATE] for source, path in self.files.items()}
        first = next(iter(self._states))
        for source, state in self._states.items():
            _check_alike(self._states[first], self.files[first], state, self.files[source])
        self._groups = _joined(self._states[first], [*tied_names(self._states[first]), *ties])
        self._owners = [self._owner(names) for names in self._groups]

    @cached_property
    def epochs(self) -> tuple[int, ...]:
        """The epochs, first one first."""
        return tuple(sorted(source for source in self._states if isinstance(source, int)))

    def build(self, recipe: Recipe) -> State:
        """Put the weights together that a recipe describes.

        Floating-point tensors are averaged in float32 at least and keep their type; others, such as counters, come
        from the source with the largest share, the latest among equals. A tensor with one source is not copied, and
        names that are tied share one tensor. Where tied names lie in several modules, the first of these decides.

        Raises:
            ValueError: The recipe lacks a module or names one or a source that there is none of, or the shares of a
                module do not add up to 1.
        """
        self._check(recipe)
        sources = {source for shares in recipe.values() for source, share in shares.items() if share}
        # Weights of one source are taken whole, also what belongs to no module.
        only = next(iter(sources)) if len(sources) == 1 else self.epochs[-1]
        built: State = {}
        for names, owner in zip(self._groups, self._owners, strict=True):
            shares = {only: 1.0} if owner is None else recipe[owner]
            tensor = _mixed({source: self._states[source][names[0]] for source in shares}, shares)
            built.update(dict.fromkeys(names, tensor))
        return {name: built[name] for name in self._states[self.epochs[0]]}

    def _check(self, recipe: Recipe) -> None:
        if recipe.keys() != self.modules.keys():
            raise ValueError(f"the recipe is for {sorted(recipe)}, the modules are {sorted(self.modules)}")
        for module, shares in recipe.items():
            unknown = shares.keys() - self._states.keys()
            if unknown:
                raise ValueError(f"{module}: there are no weights of {sorted(map(str, unknown))}")
            if abs(sum(shares.values()) - 1) > 1e-6:
                raise ValueError(f"{module}: the shares {dict(shares)} do not add up to 1")

    def _owner(self, names: Sequence[str]) -> str | None:
        """Return the module that decides over a tensor; None for one that is the same in all epochs."""
        owners = {owner for name in names if (owner := self._module_of(name)) is not None}
        if owners:
            return next(module for module in self.modules if module in owners)
        tensors = [self._states[epoch][names[0]] for epoch in self.epochs]
        if all(torch.equal(tensors[0], tensor) for tensor in tensors[1:]):
            return None
        raise UserError(
            f"'{names[0]}' changed from epoch to epoch and belongs to no module",
            where=str(self.files[self.epochs[0]]),
            expected=f"a name that begins with a prefix of {', '.join(self.modules) or 'a module'}",
            hint="add its prefix to what modules() of the family returns",
        )

    def _module_of(self, name: str) -> str | None:
        fitting = [
            (len(prefix), module)
            for module, prefixes in self.modules.items()
            for prefix in prefixes
            if name.startswith(prefix)
        ]
        return max(fitting, key=lambda each: each[0], default=(0, None))[1]


def _check_alike(first: State, first_path: Path, state: State, path: Path) -> None:
    differing = sorted(
        name
        for name in first.keys() | state.keys()
        if name not in first
        or name not in state
        or (first[name].shape, first[name].dtype) != (state[name].shape, state[name].dtype)
    )
    if differing:
        raise UserError(
            f"the weights are of another model than those of {first_path.name}: {len(differing)} tensors differ, "
            f"the first is '{differing[0]}'",
            where=str(path),
        )


def _joined(state: State, ties: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return the names of a state in groups, of which each is one tensor."""
    group_of = {name: [name] for name in state}
    for names in ties:
        known = [name for name in names if name in group_of]
        for name in known[1:]:
            first, other = group_of[known[0]], group_of[name]
            if first is not other:
                first += other
                group_of.update(dict.fromkeys(other, first))
    return list({id(group): group for group in group_of.values()}.values())


def _mixed(tensors: Mapping[Source, torch.Tensor], shares: Mapping[Source, float]) -> torch.Tensor:
    used = {source: tensor for source, tensor in tensors.items() if shares[source]}
    largest = max(used, key=lambda each: (shares[each], each if isinstance(each, int) else -1.0))
    if len(used) == 1 or not used[largest].is_floating_point():
        return used[largest]
    dtype = torch.promote_types(used[largest].dtype, torch.float32)
    total = torch.zeros_like(used[largest], dtype=dtype)
    for source, tensor in used.items():
        total.add_(tensor.to(dtype), alpha=shares[source])
    return total.to(used[largest].dtype)


def whole(modules: Iterable[str], source: Source) -> Recipe:
    """Take every module from one source."""
    return {module: {source: 1.0} for module in modules}


def selective(spots: Mapping[str, int]) -> Recipe:
    """Take each module from its own epoch."""
    return {module: {epoch: 1.0} for module, epoch in spots.items()}


def weighted(spots: Mapping[str, int], epochs: Sequence[int]) -> Recipe:
    """Average each module around its own epoch: the neighbours of that, of which there are weights, count half."""
    recipe: dict[str, dict[Source, float]] = {}
    for module, epoch in spots.items():
        place = epochs.index(epoch)
        parts = {each: 1.0 if each == epoch else 0.5 for each in epochs[max(0, place - 1) : place + 2]}
        total = sum(parts.values())
        recipe[module] = {source: part / total for source, part in parts.items()}
    return recipe


def interpolated(spots: Mapping[str, int], other: int, share: float) -> Recipe:
    """Put each module between its own epoch and another one; ``share`` is how far to go towards that, 0 to 1."""
    return {
        module: {epoch: 1.0} if epoch == other else {epoch: 1 - share, other: share}
        for module, epoch in spots.items()
    }


def soup(modules: Iterable[str], epochs: Sequence[int]) -> Recipe:
    """Average epochs equally (Wortsman et al., 2022, "Model soups")."""
    return {module: dict.fromkeys(epochs, 1 / len(epochs)) for module in modules}
