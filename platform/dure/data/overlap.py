"""Rows of the same text: what may never stand on both sides of a cut."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dure.data.arrow_files import BATCH_ROWS

if TYPE_CHECKING:
    from dure.data.tables import Table


def overlap(train: Table, dev: Table, text_roles: Sequence[str]) -> NDArray[np.int64]:
    """Return the indices of training rows whose text stands in ``dev`` too, in ascending order.

    Texts are the same as in :func:`text_groups`.
    """
    held_out = np.unique(_hashes(dev, text_roles))
    return np.flatnonzero(np.isin(_hashes(train, text_roles), held_out)).astype(np.int64)


def text_groups(table: Table, text_roles: Sequence[str]) -> NDArray[np.int64]:
    """Number the texts of a table from 0; rows of the same text have the same number.

    Texts are the same when all ``text_roles`` agree after :func:`normalised`. They are compared by 64-bit hashes,
    so memory is 8 bytes a row.
    """
    return np.unique(_hashes(table, text_roles), return_inverse=True)[1].astype(np.int64)


def normalised(text: str) -> str:
    """Return a text in Unicode NFC, without the case of its letters and with every run of whitespace as one space."""
    folded = unicodedata.normalize("NFC", text).casefold()
    # Folding may take a letter apart again, such as ǰ into j and its hook.
    return " ".join(unicodedata.normalize("NFC", folded).split())


def _hashes(table: Table, text_roles: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter(_each_hash(table, text_roles), dtype=np.uint64, count=table.num_rows)


def _each_hash(table: Table, text_roles: Sequence[str]) -> Iterator[int]:
    # A table may lack an optional text, which is then the same as an empty one.
    present = [role for role in text_roles if role in table.dataset.column_names]
    rows = table.dataset.select_columns(present)
    for start in range(0, table.num_rows, BATCH_ROWS):
        batch = rows[start : start + BATCH_ROWS]
        lacking = [""] * len(batch[present[0]])
        for texts in zip(*(batch.get(role, lacking) for role in text_roles), strict=True):
            # Normalised text holds no line end, so it can stand between two texts.
            joined = "\n".join(normalised(text) for text in texts)
            yield int.from_bytes(hashlib.blake2b(joined.encode("utf-8"), digest_size=8).digest(), "little")
