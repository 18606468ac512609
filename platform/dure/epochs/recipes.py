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
