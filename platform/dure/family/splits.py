"""The tables of an experiment by split: read each, or cut from the training table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.config.data import SAMPLE, DataConfig, FoldConfig, Source, source_name
from dure.config.ratios import as_number
from dure.data.folds import cut_fold, cut_parts
from dure.data.ratios import joined_classes
from dure.data.tables import Table
from dure.errors import counted
from dure.family.contract import Family


@dataclass(frozen=True)
class Splits:
    """The tables of an experiment, none of whose parts of the training table share a text."""

    tables: Mapping[str, Table]
    """Split to its table; ``train`` is what is left of the training table."""
    whole: Table
    """The training table before parts of it were held out."""
    rows: Mapping[str, NDArray[np.int64]]
    """Split to the numbers of its rows in ``whole``, of those that are cut from it; empty when none is."""
    data: DataConfig
    class_roles: tuple[str, ...]
    """Roles of the table that are classes."""
    notes: tuple[str, ...] = ()
    """What the cut of a fold found odd."""

    def surveyed(self) -> dict[str, Table]:
        """Return the tables that a family surveys: the training table whole, so that a split hides no class."""
        own = {split: table for split, table in self.tables.items() if split not in self.rows}
        return {**own, "train": self.whole}

    def hashes(self) -> dict[str, str]:
        """Return split to hash of the rows of its table: of folds that of the training table, which they share."""
        tables = self.tables if self.data.fold is None else {"train": self.whole}
        return {split: table.content_hash() for split, table in tables.items()}

    @property
    def record(self) -> dict[str, Any] | None:
        """What says how the training table was cut into parts, with a hash of it; None when it was not."""
        if not self.data.parts:
            return None
        digest = hashlib.sha256()
        for split in sorted(self.rows):
            digest.update(f"{split}:{','.join(map(str, self.rows[split].tolist()))};".encode())
        return {
            "table": self.whole.content_hash(),
            "parts": {split: as_number(part) for split, part in self.data.parts.items()},
            "seed": self.data.split_seed,
            "rows": {split: len(rows) for split, rows in self.rows.items()},
            "hash": digest.hexdigest(),
        }

    def messages(self) -> list[str]:
        """Return what the user should know about the cut, a line each."""
        if self.data.fold is not None:
            return self._of_fold(self.data.fold)
        if not self.rows:
            return []
        purpose = {"dev": "select the best checkpoint", "test": "are reported on"}
        parts = "".join(
            f"{len(self.rows[split]):,} {purpose[split]} (data.{split}={100 * float(part):g}%), "
            for split, part in self.data.parts.items()
        )
        alike = ", classes alike" if self.class_roles else ""
        lines = [
            f"{self.whole.source}: {parts}{len(self.rows['train']):,} train; drawn by seed {self.data.split_seed}{alike}, "
            "no text on two sides"
        ]
        classes = joined_classes(self.whole.dataset, self.class_roles)
        if classes is not None:
            lacking = len(np.setdiff1d(classes, classes[self.rows["train"]]))
            if lacking:
                lines.append(
                    f"{self.whole.source}: {lacking:,} of {len(np.unique(classes)):,} classes have too few different texts "
                    "to be among the rows that train"
                )
        return lines

    def _of_fold(self, fold: FoldConfig) -> list[str]:
        name, table = f"fold {fold.number} of {fold.of}", self.whole.source
        given = (("dev", self.data.dev, "selects"), ("test", self.data.test, "is reported on"))
        return [
            *(
                f"data.{split}={source_name(source)} takes no part: {name} of {table} {does}"
                for split, source, does in given
                if source is not None and source != SAMPLE
            ),
            *self.notes,
            f"{name}: {counted(len(self.rows['train']), 'row')} of {table} to train on, {len(self.rows['dev']):,} select "
            f"the best checkpoint, {len(self.rows['test']):,} are held out and reported on",
        ]


def cut(family: Family, tables: Mapping[str, Table]) -> Splits:
    """Cut the training table into the parts of a fold, or hold out of it what ``data.dev`` and ``data.test`` ask for.

    Raises:
        UserError: The training table has too few different texts.
    """
    data, whole = family.experiment.data, tables["train"]
    present = whole.dataset.column_names
    classes = tuple(role.name for role in family.roles if role.is_class and role.name in present)
    rows: dict[str, NDArray[np.int64]] = {}
    notes: tuple[str, ...] = ()
    if data.fold is not None:
        rows, notes = cut_fold(whole, family.roles, data.fold)
    elif data.parts:
        rows = cut_parts(whole, family.roles, data.parts, data.split_seed)
    parts = {split: whole.select(numbers) for split, numbers in rows.items()}
    return Splits({**tables, **parts}, whole, rows, data, classes, notes)


def sources_of(family: Family) -> dict[str, Source]:
    """Return what is read for an experiment, by split: not the parts that are cut from the training table."""
    data = family.experiment.data
    if data.fold is not None:
        return {"train": data.train}
    # The embedded corpus brings its own test table.
    test = SAMPLE if data.test is None and data.train == SAMPLE else data.test
    given = {"train": data.train, "dev": data.dev, "test": test}
    return {
        split: source for split, source in given.items() if source is not None and split not in data.parts
    }
