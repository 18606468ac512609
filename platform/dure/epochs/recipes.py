"""Ways to mix the epochs of a model: each gives the recipe of one candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dure.epochs.mixing import Recipe, Source


def whole(modules: Iterable[str], source: Source) -> Recipe:
    """Take every module from one source."""
    return {module: {source: 1.0} for module in modules}


def selective(spots: Mapping[str, int]) -> Recipe:
    """Take each module from its own epoch."""
    return {module: {epoch: 1.0} for module, epoch in spots.items()}


def weighted(spots: Mapping[str, int], epochs: Sequence[int], *, reach: int = 1) -> Recipe:
    """Average each module around its own epoch: a neighbour counts half, the next one a quarter, and so on.

    Args:
        spots: Module → its epoch.
        epochs: Epochs that there are weights of, in order; neighbours are next to each other here.
        reach: Neighbours on each side.
    """
    recipe: dict[str, dict[Source, float]] = {}
    for module, epoch in spots.items():
        place = epochs.index(epoch)
        near = range(max(0, place - reach), min(len(epochs), place + reach + 1))
        parts = {epochs[each]: 0.5 ** abs(each - place) for each in near}
        total = sum(parts.values())
        recipe[module] = {source: part / total for source, part in parts.items()}
    return recipe


def interpolated(spots: Mapping[str, int], other: int, share: float) -> Recipe:
    """Put each module between its own epoch and another one.

    Args:
        spots: Module → its epoch.
        other: The other epoch.
        share: How far to go towards it, 0 to 1.
    """
    return {
        module: {epoch: 1.0} if epoch == other else {epoch: 1 - share, other: share}
        for module, epoch in spots.items()
    }


def soup(modules: Iterable[str], epochs: Sequence[int]) -> Recipe:
    """Average epochs equally (Wortsman et al., 2022, "Model soups")."""
    return {module: dict.fromkeys(epochs, 1 / len(epochs)) for module in modules}
