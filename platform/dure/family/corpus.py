"""The rows of a run: read, checked, kept apart and encoded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dure.config.data import SAMPLE, Source, source_name
from dure.config.ratios import as_number
from dure.config.schema import Experiment
from dure.data.arrow_files import max_bytes
from dure.data.encoding import encode_table
from dure.data.overlap import notes_on_rows, overlap
from dure.data.ratios import joined_classes, nested_rows
from dure.data.sources import files_of
from dure.data.tables import Table, draw_rows, read_table, table_from_rows
from dure.errors import UserError, counted
from dure.events import Notify
from dure.family import Family
from dure.family.splits import Splits, cut, sources_of
from dure.files import make_folder

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Corpus:
    """What a run trains and validates on."""

    tokenizer: PreTrainedTokenizerBase
    train: datasets.Dataset
    """Encoded training rows: the part of them that ``data.train_ratio`` says."""
    dev: datasets.Dataset | None
    """Encoded validation rows, none of which shares a text with training."""
    test: datasets.Dataset | None
    """Encoded rows that a result is reported on, when they have targets; apart from training too."""
    hashes: dict[str, str]
    """Split to hash of the rows of its table."""
    num_rows_in_all: int
    """Training rows of which ``data.train_ratio`` takes a part."""
    tested: ChosenRows | None = None
    """The rows of ``test`` as they stand in their table, when there are some."""
    split: dict[str, Any] | None = None
    """How the training table was cut into these; None when each has a table of its own, or a fold decides."""


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of a table that was read; of the training table when they are of a fold, or a part that is held out."""

    of: Table
    numbers: NDArray[np.int64]
    """Their numbers in it, from 0, ascending."""

    @cached_property
    def table(self) -> Table:
        """The table of these rows; all of them are the table itself, so that what is cached of it is found."""
        return self.of if len(self.numbers) == self.of.num_rows else self.of.select(self.numbers)

    def at_most(self, limit: int | None, seed: int, what: str, notify: Notify) -> ChosenRows:
        """Return at most ``limit`` of these rows."""
        total = len(self.numbers)
        if limit is None or limit >= total:
            return self
        notify(f"{what} on {limit:,} of {counted(total, 'row')} of {self.of.source}, drawn by seed {seed}")
        return ChosenRows(self.of, self.numbers[draw_rows(total, limit, seed)])


def cache_folder() -> Path:
    """Return where checked tables and encoded rows are kept: ``$DURE_CACHE``, or ``~/.cache/dure``.

    Raises:
        UserError: It cannot be written to, or ``DURE_CACHE_MAX_GB`` is no size.
    """
    folder = Path(os.environ.get("DURE_CACHE") or Path.home() / ".cache" / "dure")
    max_bytes()
    make_folder(folder, where="cache of tables (environment variable DURE_CACHE says where)")
    return folder


def check_sources(experiment: Experiment) -> None:
    """Check that the tables of an experiment belong together and are there, without reading them.

    Raises:
        UserError: Real rows would be validated on the embedded corpus, or a table is not there.
    """
    data = experiment.data
    given = () if data.fold is not None else (("dev", data.dev), ("test", data.test))
    held_out = [(split, source) for split, source in given if split not in data.parts]
    for split, source in held_out:
        if source == SAMPLE and data.train != SAMPLE:
            raise UserError(
                f"it is the embedded sample corpus, while data.train is {source_name(data.train)}",
                where=f"data.{split}",
                expected="tables of the same corpus",
                hint=f"data.{split}=10% holds a part of the training rows out; or data.{split}=FILE, or "
                f"data.{split}=null to do without",
            )
    for split, source in (("train", data.train), *held_out):
        if source is not None and source != SAMPLE:
            try:
                files_of(source)
            except UserError as error:
                where = f"data.{split}={source_name(source)}"
                if not isinstance(source, str) and error.where is not None:
                    where += f" ({error.where})"
                raise error.at(where) from None


def read_split(family: Family, split: str, source: Source) -> Table:
    """Read one table of an experiment, or the embedded corpus.

    Raises:
        UserError: The table is not what the family needs; with file, row and remedy.
    """
    data = family.experiment.data
    if source == SAMPLE:
        return table_from_rows(
            family.sample(split), f"sample {split}", family.roles, cache_folder=cache_folder(), reading=data
        )
    # A test table may come with or without targets.
    roles = [replace(role, required=role.is_input) if split == "test" else role for role in family.roles]
    return read_table(source, roles, data.columns, reading=data, cache_folder=cache_folder())


def check_tables(family: Family) -> None:
    """Read the tables of an experiment and look for what would end every run of it; the cache keeps what is read.

    Raises:
        UserError: A table is not what the family needs, or cannot be cut into the folds.
    """
    family.survey(read_splits(family).surveyed())


def read_splits(family: Family) -> Splits:
    """Read the tables of an experiment, and cut what is held out of the training table.

    Raises:
        UserError: A table is not what the family needs, or cannot be cut so.
    """
    check_sources(family.experiment)
    sources = sources_of(family)
    return cut(family, {split: read_split(family, split, source) for split, source in sources.items()})


def load_corpus(
    family: Family, *, notify: Notify, tokenizer: PreTrainedTokenizerBase | None = None
) -> Corpus:
    """Read, check and encode the training and validation rows of an experiment.

    Training rows whose text stands in the validation table too are dropped, refused or only reported, as
    ``data.on_overlap`` says; then ``data.max_train_rows`` draws from the rest, and ``data.train_ratio`` from
    that. The tokenizer and the cache see the rows before the ratio: so a rehearsal has one vocabulary at every
    ratio, as a warm start needs, and a table is encoded once for all its ratios.

    Where ``data.dev`` or ``data.test`` is a part of the training table, that is cut first.

    With ``data.fold`` the training table alone gives all rows: the fold's are ``test``, a part of the others is
    ``dev``, and no text is in two of the three. The limits and the ratio then draw from these parts. The family surveys
    the whole table: its classes are the same in all folds.

    Raises:
        UserError: A table, or the tokenizer for it, is wrong; or no training row is left.
    """
    data, seed = family.experiment.data, family.experiment.experiment.seed
    # Experiments that are compared on a fold are measured on the same rows of it, whatever their seeds.
    measured_by = seed if data.fold is None else data.fold.seed
    splits = read_splits(family)
    surveyed = splits.surveyed()
    for message in (*(each for table in surveyed.values() for each in table.messages()), *splits.messages()):
        notify(message)
    family.survey(surveyed)
    for message in notes_on_rows(surveyed, family.roles):
        notify(message)
    drawn: dict[str, ChosenRows] = {}
    for split, table in splits.tables.items():
        of = splits.whole if split in splits.rows else table
        if split == "test" and of is table and not _has_targets(family, table, notify):
            continue
        rows = ChosenRows(of, splits.rows.get(split, np.arange(of.num_rows)))
        if split != "train":
            drawn[split] = rows.at_most(data.max_dev_rows, measured_by, split, notify)
            continue
        for other in (other for name, other in surveyed.items() if name != "train"):
            rows = _without_overlap(family, rows, other, notify)
        drawn[split] = rows.at_most(data.max_train_rows, seed, "training", notify)

    train = drawn["train"].table
    tokenizer = tokenizer or family.load_tokenizer(lambda: texts_of(family, train))
    encoded = _encoded(family, tokenizer, drawn, notify)
    return Corpus(
        tokenizer,
        _part_of(family, train, encoded["train"], notify),
        encoded.get("dev"),
        encoded.get("test"),
        splits.hashes(),
        train.num_rows,
        drawn.get("test"),
        splits.record,
    )


def _encoded(
    family: Family, tokenizer: PreTrainedTokenizerBase, drawn: Mapping[str, ChosenRows], notify: Notify
) -> dict[str, datasets.Dataset]:
    """Encode the rows of all splits; those of one table together, so that all its folds and parts find them again."""
    together: dict[str, list[str]] = {}
    for split, rows in drawn.items():
        together.setdefault(rows.of.fingerprint, []).append(split)
    found = {}
    for splits in together.values():
        used = np.unique(np.concatenate([drawn[split].numbers for split in splits]))
        table = ChosenRows(drawn[splits[0]].of, used).table
        encoded = encode_split(family, tokenizer, table, notify=notify)
        for split in splits:
            numbers = drawn[split].numbers
            is_all = len(numbers) == len(used)
            found[split] = encoded if is_all else encoded.select(np.searchsorted(used, numbers))
    return found


def _has_targets(family: Family, table: Table, notify: Notify) -> bool:
    """Whether a test table has what a score needs; one to be predicted only has not."""
    for role in family.roles:
        if not role.required or role.is_input:
            continue
        if role.name not in table.dataset.column_names:
            return False
        empty = sum(not text.strip() for text in table.cells(role.name))
        if empty:
            notify(
                f"{table.source}: {empty:,} of {table.num_rows:,} rows have no {role.name}, so it is not scored"
            )
            return False
    return True


def texts_of(family: Family, table: Table) -> Iterator[str]:
    """Give all text of a table, of every role but ids, classes and other values."""
    for batch in table.dataset.iter(batch_size=1000):
        for role in family.roles:
            is_text = not role.is_id and not role.is_class and role.reader is None
            if is_text and role.name in batch:
                yield from batch[role.name]


def encode_split(
    family: Family, tokenizer: PreTrainedTokenizerBase, table: Table, *, notify: Notify
) -> datasets.Dataset:
    """Encode the rows of a table, or take them from the cache; the user is told what was cut or is unknown.

    Raises:
        UserError: Too many tokens are unknown: it is the wrong tokenizer.
    """
    encoded = encode_table(
        table.dataset,
        table.fingerprint,
        partial(family.encode, tokenizer=tokenizer),
        key=family.encoding_key(),
        tokenizer=tokenizer,
        cache_folder=cache_folder(),
        max_unknown_rate=family.experiment.tokenizer.max_unknown_rate,
        source=table.source,
        place=table.place,
    )
    for message in encoded.messages(table.place):
        notify(message)
    return encoded.dataset


def _part_of(family: Family, table: Table, rows: datasets.Dataset, notify: Notify) -> datasets.Dataset:
    """Return the part of the encoded rows of a table that ``data.train_ratio`` says, of every class alike."""
    ratio, seed = family.experiment.data.train_ratio, family.experiment.experiment.seed
    if ratio == 1:
        return rows
    classes = [
        role.name for role in family.roles if role.is_class and role.name in table.dataset.column_names
    ]
    part = nested_rows(table.num_rows, ratio, seed, joined_classes(table.dataset, classes))
    notify(
        f"training on {len(part):,} of {counted(table.num_rows, 'row')} of {table.source} "
        f"(data.train_ratio={as_number(ratio)}), drawn by seed {seed}"
    )
    return rows.select(part)


def _without_overlap(family: Family, rows: ChosenRows, dev: Table, notify: Notify) -> ChosenRows:
    """Return the training rows whose text validation does not have."""
    train = rows.table
    inputs = [role.name for role in family.roles if role.is_input]
    shared = overlap(train, dev, inputs)
    if not len(shared):
        return rows
    what = f"{len(shared):,} of {train.num_rows:,} training rows have a text that stands in {dev.source} too"
    text = " ".join(str(train.dataset[int(shared[0])][inputs[0]]).split())
    first = f"{train.source}, the text that begins with '{text[:40]}'"
    match family.experiment.data.on_overlap:
        case "error":
            raise UserError(what, where=first, hint="remove them, or set data.on_overlap=drop")
        case "warn":
            notify(f"{what}; they are kept (data.on_overlap=warn), so validation flatters; first: {first}")
            return rows
        case "drop":
            notify(f"{what}; they are left out (data.on_overlap=drop); first: {first}")
    if len(shared) == train.num_rows:
        raise UserError(
            "every training row has a text that stands in the validation table too",
            where=f"data.train ({train.source})",
            hint=f"give another table than {dev.source} as data.dev",
        )
    return ChosenRows(rows.of, np.delete(rows.numbers, shared))
