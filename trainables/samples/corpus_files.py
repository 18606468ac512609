"""What the sample corpora have in common: sizes, shares, and CSV files as a competition has them, the truth of the test set apart."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dure.data.writing import write_rows
from dure.errors import UserError
from dure.files import make_folder


def sizes_of(num_train: int, num_dev: int, num_test: int, *, most: int) -> dict[str, int]:
    """Return how many rows each split of a corpus gets.

    Raises:
        UserError: A number is negative, or they are more than ``most`` together.
    """
    sizes = {"train": num_train, "dev": num_dev, "test": num_test}
    if min(sizes.values()) < 0 or sum(sizes.values()) > most:
        raise UserError(
            f"the sizes are {sizes}",
            where="sample corpus",
            expected=f"numbers from 0 on, together at most {most}",
        )
    return sizes


def labels_in(shares: Mapping[str, int], size: int, rng: random.Random) -> list[str]:
    """Return the classes of so many rows in their shares, which are percents, and in random order."""
    # The rarer ones are rounded and the first takes the rest.
    rarer = [label for label, share in list(shares.items())[1:] for _ in range(round(size * share / 100))]
    labels = [next(iter(shares))] * (size - len(rarer)) + rarer
    rng.shuffle(labels)
    return labels


def write_corpus(
    folder: Path, corpus: Mapping[str, Sequence[Any]], columns: Sequence[str], *, truth: str
) -> dict[str, Path]:
    """Write the splits of a corpus as CSV files in UTF-8; line breaks stand as they are inside quoted cells.

    Args:
        folder: Where to; made when it is not there.
        corpus: The splits ``train``, ``dev`` and ``test``; their rows are dataclasses.
        columns: All columns, in their order. The first one joins ``test.csv``, which lacks the truth, to
            ``test_reference.csv``, which has nothing beside it.
        truth: The column that is to be predicted.

    Returns:
        The paths by name: ``train``, ``dev``, ``test`` and ``test_reference``.

    Raises:
        UserError: The folder cannot be written to.
    """
    make_folder(folder, where=f"--output {folder}")
    tables = {
        "train": ("train", columns),
        "dev": ("dev", columns),
        "test": ("test", [column for column in columns if column != truth]),
        "test_reference": ("test", [columns[0], truth]),
    }
    paths = {name: folder / f"{name}.csv" for name in tables}
    for name, (split, chosen) in tables.items():
        write_rows(paths[name], chosen, ([getattr(row, each) for each in chosen] for row in corpus[split]))
    return paths
