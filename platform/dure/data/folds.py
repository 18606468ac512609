"""Folds of a table: every row held out once, every class alike, and equal texts always on the same side."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dure.config.data import FoldConfig
from dure.data.overlap import text_groups
from dure.data.ratios import joined_classes
from dure.data.tables import Role, Table
from dure.errors import UserError

_NAMED_CLASSES = 3

Integers = NDArray[np.int64]


def cut_fold(
    table: Table, roles: Sequence[Role], fold: FoldConfig
) -> tuple[dict[str, Integers], tuple[str, ...]]:
    """Cut a table into the rows that train, those that select and those that are held out and reported on.

    No text stands in two of them. The held-out rows depend on the table, ``fold.of`` and ``fold.seed`` only, so that
    experiments of all kinds can be compared on them.

    Of the roles, inputs are the text of a row and classes its stratum.

    Returns:
        Row numbers from 0, ascending, by ``train``, ``dev`` and ``test``; and what the user should know of the cut.

    Raises:
        UserError: The table has too few different texts.
    """
    groups, columns, classes = _texts_and_classes(table, roles)
    num_groups = int(groups.max()) + 1
    if num_groups < fold.of:
        raise UserError(
            f"{num_groups:,} different texts cannot be cut into {fold.of} folds",
            where=f"data.fold.of={fold.of} ({table.source})",
            expected=f"at least {fold.of:,} different texts",
        )
    held_out = fold_numbers(groups, classes, fold.of, fold.seed) == fold.number
    strata, sizes = _majority(groups, classes), np.bincount(groups)
    rest = np.setdiff1d(np.arange(num_groups), groups[held_out])
    if len(rest) < 2:
        raise UserError(
            "all rows that are not held out are of one text, which cannot both train and select",
            where=f"data.fold ({table.source})",
            expected="more different texts, or more folds",
        )
    rng = np.random.default_rng([fold.seed, fold.number])
    selected = np.zeros(num_groups, dtype=bool)
    selected[rest] = _drawn(sizes[rest], strata[rest], fold.selection, rng)
    selects = selected[groups]
    sides = {"train": ~held_out & ~selects, "dev": selects, "test": held_out}
    rows: dict[str, Integers] = {split: np.flatnonzero(chosen) for split, chosen in sides.items()}
    if classes is None:
        return rows, ()
    is_combined = any(role.separator for role in roles)
    return rows, _messages(table, columns, classes, strata, fold.of, is_combined=is_combined)


def cut_parts(
    table: Table, roles: Sequence[Role], parts: Mapping[str, Fraction], seed: int
) -> dict[str, Integers]:
    """Hold parts of a table out, every class alike and with no text on two sides.

    The parts depend on the table, ``parts`` and ``seed`` only. A part is as near to its ratio of the rows as texts that
    must stay together let it be. Of the roles, inputs are the text of a row and classes its stratum. All parts together
    are below 1.

    Returns:
        Row numbers from 0, ascending: of every part by its name, and of the rest as ``train``.

    Raises:
        UserError: The table has too few different texts.
    """
    groups, _, classes = _texts_and_classes(table, roles)
    strata, sizes = _majority(groups, classes), np.bincount(groups)
    rest = np.arange(len(sizes))
    left = Fraction(1)
    found: dict[str, Integers] = {}
    # The rows that are reported on come first, so that they stay the same whatever else is held out.
    for place, name in enumerate(sorted(parts, reverse=True)):
        rng = np.random.default_rng([seed, place])
        is_taken = _drawn(sizes[rest], strata[rest], parts[name] / left, rng)
        found[name] = np.flatnonzero(np.isin(groups, rest[is_taken]))
        rest, left = rest[~is_taken], left - parts[name]
    found = {"train": np.flatnonzero(np.isin(groups, rest)), **found}
    if not all(len(rows) for rows in found.values()):
        raise UserError(
            f"{len(sizes):,} different texts cannot be cut into {len(found)} parts",
            where=table.source,
            expected="a text at least for every part, and one to train on",
            hint="a larger table, or data.dev and data.test in files of their own",
        )
    return found


def fold_numbers(groups: Integers, classes: Integers | None, num_folds: int, seed: int) -> Integers:
    """Return the fold of every row, from 1.

    Rows of a group share a fold. Within a class, groups are dealt largest first, each to the fold that has the fewest
    rows of the class (Graham 1969, "Bounds on Multiprocessing Timing Anomalies"), of several the one with the fewest
    rows in all: so a class differs between two folds by no more rows than its largest group has, and by at most one
    when no text stands twice. A group of several classes counts as its most frequent one. The order within a size is
    drawn by the seed. Groups and classes are numbered from 0 without a gap; without classes all rows are of one.
    """
    dealt = _dealt(np.bincount(groups), _majority(groups, classes), num_folds, np.random.default_rng(seed))
    return dealt[groups]


def _texts_and_classes(table: Table, roles: Sequence[Role]) -> tuple[Integers, list[str], Integers | None]:
    """Return the text of every row by number, the columns of classes, and the class of every row by number."""
    groups = text_groups(table, [role.name for role in roles if role.is_input])
    columns = [role.name for role in roles if role.is_class and role.name in table.dataset.column_names]
    return groups, columns, joined_classes(table.dataset, columns)


def _majority(groups: Integers, classes: Integers | None) -> Integers:
    """Return the most frequent class of every group; of several the one with the lowest number."""
    if classes is None:
        classes = np.zeros_like(groups)
    num_classes = int(classes.max()) + 1
    pairs, counts = np.unique(groups * num_classes + classes, return_counts=True)
    group, code = np.divmod(pairs, num_classes)
    order = np.lexsort((code, -counts, group))
    firsts = np.unique(group[order], return_index=True)[1]
    majority: Integers = code[order][firsts]
    return majority


def _dealt(sizes: Integers, strata: Integers, num_folds: int, rng: np.random.Generator) -> Integers:
    """Return the fold of every group, from 1."""
    order = np.lexsort((rng.permutation(len(sizes)), -sizes, strata))
    folds = np.empty(len(sizes), dtype=np.int64)
    totals = [0] * num_folds
    heap: list[tuple[int, int, int]] = []
    stratum = None
    for group, size, current in zip(
        order.tolist(), sizes[order].tolist(), strata[order].tolist(), strict=True
    ):
        if current != stratum:
            stratum = current
            heap = [(0, total, fold) for fold, total in enumerate(totals)]
            heapq.heapify(heap)
        rows, total, fold = heap[0]
        folds[group] = fold + 1
        totals[fold] = total + size
        heapq.heapreplace(heap, (rows + size, total + size, fold))
    return folds


def _drawn(sizes: Integers, strata: Integers, ratio: Fraction, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which groups make up a part of the rows: some, but not all.

    Class after class and largest first, a group is taken when that brings the rows taken so far nearer to the ratio
    of those passed so far. So groups of all sizes come in alike, and what one class has too much or too little of is
    made up for by the next.
    """
    order = np.lexsort((rng.permutation(len(sizes)), -sizes, strata))
    taken = np.zeros(len(sizes), dtype=bool)
    lack = 0  # Rows that are lacking, times the ratio's denominator.
    for group, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        lack += ratio.numerator * size
        if 2 * lack >= ratio.denominator * size:
            taken[group] = True
            lack -= ratio.denominator * size
    if taken.all() or not taken.any():
        taken[order[-1]] ^= True
    return taken


def _messages(
    table: Table,
    columns: Sequence[str],
    classes: Integers,
    strata: Integers,
    num_folds: int,
    *,
    is_combined: bool,
) -> tuple[str, ...]:
    counts = np.bincount(strata, minlength=int(classes.max()) + 1)
    rare = np.flatnonzero(counts < num_folds)
    if not len(rare):
        return ()
    what = "combinations of classes" if is_combined else "classes"
    named = []
    for code in rare[:_NAMED_CLASSES].tolist():
        row = table.dataset[int(np.flatnonzero(classes == code)[0])]
        named.append(f"{' / '.join(row[column].strip() for column in columns)}: {counts[code]}")
    more = ", …" if len(rare) > _NAMED_CLASSES else ""
    return (
        f"{table.source}: {len(rare):,} of {len(counts):,} {what} have fewer different texts than there are folds "
        f"({num_folds}), so some folds have none of them ({', '.join(named)}{more})",
    )
