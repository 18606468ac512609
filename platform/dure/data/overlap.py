"""Rows of the same text: what may never stand on both sides of a cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dure.data.arrow_files import BATCH_ROWS
from dure.data.canonical import folded
from dure.data.labels import notes_on_classes
from dure.data.ratios import joined_classes

if TYPE_CHECKING:
    from dure.data.tables import Role, Table


def overlap(train: Table, dev: Table, text_roles: Sequence[str]) -> NDArray[np.int64]:
    """Return the indices of training rows whose text stands in ``dev`` too, in ascending order.

    Texts are the same as in :func:`text_groups`.
    """
    held_out = np.unique(_hashes(dev, text_roles))
    return np.flatnonzero(np.isin(_hashes(train, text_roles), held_out)).astype(np.int64)


def text_groups(table: Table, text_roles: Sequence[str]) -> NDArray[np.int64]:
    """Number the texts of a table from 0; rows of the same text have the same number.

    Texts are the same when all ``text_roles`` agree after :func:`~dure.data.canonical.folded`. They are compared by 64-bit hashes,
    so memory is 8 bytes a row.
    """
    return np.unique(_hashes(table, text_roles), return_inverse=True)[1].astype(np.int64)


def conflicting_texts(
    table: Table, text_roles: Sequence[str], class_roles: Sequence[str]
) -> NDArray[np.int64]:
    """Return the first row of every text that stands in rows of different classes, in ascending order.

    Texts are the same as in :func:`text_groups`, classes as labels are compared. A table without classes has none.
    """
    present = [role for role in class_roles if role in table.dataset.column_names]
    classes = joined_classes(table.dataset, present)
    if classes is None:
        return np.empty(0, dtype=np.int64)
    groups = text_groups(table, text_roles)
    pairs = np.unique(groups * (classes.max() + 1) + classes) // (classes.max() + 1)
    texts, counts = np.unique(pairs, return_counts=True)
    firsts = np.unique(groups, return_index=True)[1]
    return np.sort(firsts[texts[counts > 1]]).astype(np.int64)


def notes_on_rows(tables: Mapping[str, Table], roles: Sequence[Role]) -> list[str]:
    """Return what the user should know about classes and equal texts in an experiment's tables, a line each.

    ``tables`` has every split (``train``, ``dev``, ``test``) that there is.
    """
    inputs = [role.name for role in roles if role.is_input]
    classes = [role.name for role in roles if role.is_class]
    train = tables.get("train")
    lines = [
        line
        for role in roles
        if train is not None and role.is_class and role.name in train.dataset.column_names
        for line in notes_on_classes(train, role.name, role.separator)
    ]
    for table in tables.values():
        rows = conflicting_texts(table, inputs, classes)
        if len(rows):
            noun = "text stands" if len(rows) == 1 else "texts stand"
            lines.append(
                f"{table.source}: {len(rows):,} {noun} in rows of different {' or '.join(classes)}, which no model can get "
                f"right; first: {table.place(int(rows[0]))}"
            )
    if "dev" in tables and "test" in tables:
        dev, test = tables["dev"], tables["test"]
        shared = len(overlap(test, dev, inputs))
        if shared:
            all_rows = "all" if shared == test.num_rows else f"{shared:,} of"
            lines.append(
                f"{test.source}: {all_rows} {test.num_rows:,} test rows have a text that stands in {dev.source} too, "
                "which chooses the checkpoint: the score on them flatters"
            )
    return lines


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
            # Folded text holds no line end, so it can stand between two texts.
            joined = "\n".join(folded(text) for text in texts)
            yield int.from_bytes(hashlib.blake2b(joined.encode("utf-8"), digest_size=8).digest(), "little")
