"""Part of the rows: nested from ratio to ratio, and the same part of every class."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dure.data.labels import class_keys

if TYPE_CHECKING:
    import datasets
    import pyarrow


def nested_rows(
    num_rows: int,
    ratio: Fraction,
    seed: int,
    classes: Sequence[Any] | NDArray[Any] | pyarrow.Array | pyarrow.ChunkedArray | None = None,
) -> NDArray[np.int64]:
    """Return which rows are in a part of a table; a smaller part lies within every larger one of the same seed.

    Systematic sampling (Madow 1949) with one start per class: class ``c`` of ``n_c`` rows gives the first
    ``floor(ratio * n_c + u_c)`` of its shuffled rows, where the ``u_c`` lie evenly in (0, 1). So each class is
    within one row of its exact share, rare classes take turns instead of all staying out (or all coming in)
    together, and the sum stays near ``ratio * num_rows``. All in whole numbers: nothing is rounded.

    Args:
        num_rows: Rows of the table, at least one.
        ratio: The part, above 0 and up to 1. There is always a row: the one that would come in first.
        seed: What the rows and the turns of the classes are drawn by.
        classes: The class of every row; texts are told apart as labels are.

    Returns:
        Numbers of the rows, ascending.

    Raises:
        ValueError: There is no row, the ratio is none, or there is not one class for every row.
    """
    if num_rows < 1 or not 0 < ratio <= 1:
        raise ValueError(f"{ratio} of {num_rows} rows is no part of a table")
    codes = np.zeros(num_rows, dtype=np.int64) if classes is None else class_codes(classes)
    if len(codes) != num_rows:
        raise ValueError(f"{len(codes)} classes do not pair up with {num_rows} rows")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(num_rows)
    shuffled = shuffled[np.argsort(codes[shuffled], kind="stable")]
    sizes = np.bincount(codes)
    taken = _num_taken(sizes, Fraction(ratio), rng.permutation(len(sizes)))
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(num_rows) - np.repeat(starts, sizes)
    return np.sort(shuffled[rank < np.repeat(taken, sizes)]).astype(np.int64)


def class_codes(
    classes: Sequence[Any] | NDArray[Any] | pyarrow.Array | pyarrow.ChunkedArray,
) -> NDArray[np.int64]:
    """Number the classes of a column from 0 in the order in which they come; its texts stay in Arrow's memory."""
    import pyarrow

    array = classes if isinstance(classes, (pyarrow.Array, pyarrow.ChunkedArray)) else pyarrow.array(classes)
    encoded = array.dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pyarrow.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    codes: NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    names = encoded.dictionary
    if pyarrow.types.is_string(names.type) or pyarrow.types.is_large_string(names.type):
        same = pyarrow.array(class_keys(names.to_pylist())).dictionary_encode(null_encoding="encode")
        codes = same.indices.to_numpy(zero_copy_only=False).astype(np.int64)[codes]
    return codes


def joined_classes(dataset: datasets.Dataset, columns: Sequence[str]) -> NDArray[np.int64] | None:
    """Return one class per row for the values of several columns together, or None without columns."""
    joined: NDArray[np.int64] | None = None
    for column in columns:
        codes = class_codes(dataset.select_columns([column]).with_format("arrow")[:][column])
        joined = codes if joined is None else class_codes(joined * (codes.max() + 1) + codes)
    return joined


def _num_taken(sizes: NDArray[np.int64], ratio: Fraction, turns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many rows every class gives; class ``c`` starts at ``u_c = (2 * turns[c] + 1) / (2 * C)``."""
    num_classes = len(sizes)
    starts = 2 * turns + 1
    # Few sizes are different, even of a million classes; Python's whole numbers have room for any ratio.
    different, which = np.unique(sizes, return_inverse=True)
    wholes, least_starts = [], []
    for size in different.tolist():
        whole, rest = divmod(ratio.numerator * size, ratio.denominator)
        wholes.append(whole)
        # One row more from the start on at which rest / denominator + u_c reaches 1, rounded up.
        least_starts.append(-(2 * num_classes * (rest - ratio.denominator) // ratio.denominator))
    taken: NDArray[np.int64] = np.array(wholes)[which] + (starts >= np.array(least_starts)[which])
    if not taken.any():
        taken[_first_in(sizes, starts)] = 1
    return taken


def _first_in(sizes: NDArray[np.int64], starts: NDArray[np.int64]) -> int:
    """Return the class whose first row comes in at the smallest ratio, ``(1 - u_c) / n_c``."""
    by_size = np.lexsort((starts, sizes))
    different = np.unique(sizes)
    last_of_size = by_size[np.searchsorted(sizes[by_size], different, side="right") - 1]
    entries = [
        (Fraction(2 * len(sizes) - int(starts[place]), int(sizes[place])), int(place))
        for place in last_of_size
    ]
    return min(entries)[1]
