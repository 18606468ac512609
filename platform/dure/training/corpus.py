"""The rows of a run: read, checked, kept apart and encoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from dure.data.encoding import Encoded, encode_table
from dure.data.overlap import overlap
from dure.data.tables import Table, read_table, select_rows, table_from_rows
from dure.errors import UserError
from dure.family import Family

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

SAMPLE = "sample"
"""What ``data.train`` and its like say for the family's embedded corpus."""


@dataclass(frozen=True)
class Corpus:
    """What a run trains and validates on.

    Attributes:
        tokenizer: The tokenizer of the rows.
        train: Encoded training rows.
        dev: Encoded validation rows, none of which shares a text with training.
        fingerprints: Split to content hash of its table.
    """

    tokenizer: PreTrainedTokenizerBase
    train: datasets.Dataset
    dev: datasets.Dataset | None
    fingerprints: dict[str, str]


def cache_folder() -> Path:
    """Return where checked tables and encoded rows are kept: ``$DURE_CACHE``, or ``~/.cache/dure``."""
    return Path(os.environ.get("DURE_CACHE") or Path.home() / ".cache" / "dure")


def read_split(family: Family, split: str, source: str, *, for_prediction: bool = False) -> Table:
    """Read one table of an experiment, or the embedded corpus.

    Raises:
        UserError: The table is not what the family needs; with file, row and remedy.
    """
    data = family.experiment.data
    if source == SAMPLE:
        return table_from_rows(
            family.sample(split), f"sample {split}", family.roles, cache_folder=cache_folder() / "tables"
        )
    return read_table(
        Path(source),
        family.roles,
        data.columns,
        for_prediction=for_prediction,
        encoding=data.encoding,
        on_bad_row=data.on_bad_row,
        cache_folder=cache_folder() / "tables",
    )


def load_corpus(family: Family, *, tell: Callable[[str], None]) -> Corpus:
    """Read, check and encode the training and validation rows of an experiment.

    Training rows whose text stands in the validation table too are dropped, refused or only told, as
    ``data.on_overlap`` says.

    Raises:
        UserError: A table, or the tokenizer for it, is wrong; or no training row is left.
    """
    data, seed = family.experiment.data, family.experiment.experiment.seed
    train = read_split(family, "train", data.train)
    dev = None if data.dev is None else read_split(family, "dev", data.dev)
    for table in (train, dev):
        for message in () if table is None else table.messages():
            tell(message)
    rows = numpy.arange(train.num_rows)
    if dev is not None:
        rows = numpy.setdiff1d(rows, _overlapping(family, train, dev, tell))
        if not len(rows):
            raise UserError(
                "every training row stands in the validation table too",
                where="data.train",
                hint="give another table as data.dev",
            )
    if data.max_train_rows is not None and data.max_train_rows < len(rows):
        rows = rows[select_rows(len(rows), data.max_train_rows, seed)]
        tell(f"training on {len(rows):,} of {train.num_rows:,} rows (data.max_train_rows)")
    train_rows = train.dataset.select(rows)

    def texts() -> Iterator[str]:
        for batch in train_rows.iter(batch_size=1000):
            for role in family.roles:
                if role.name in batch and not role.is_id:
                    yield from batch[role.name]

    tokenizer = family.load_tokenizer(texts)
    encoded_train = encode_split(family, tokenizer, train, rows, tell=tell)
    encoded_dev = None
    if dev is not None:
        dev_rows = numpy.arange(dev.num_rows)
        if data.max_dev_rows is not None and data.max_dev_rows < dev.num_rows:
            dev_rows = numpy.asarray(select_rows(dev.num_rows, data.max_dev_rows, seed))
            tell(f"validating on {len(dev_rows):,} of {dev.num_rows:,} rows (data.max_dev_rows)")
        encoded_dev = encode_split(family, tokenizer, dev, dev_rows, tell=tell).dataset
    fingerprints = {"train": train.fingerprint} | ({} if dev is None else {"dev": dev.fingerprint})
    return Corpus(tokenizer, encoded_train.dataset, encoded_dev, fingerprints)


def encode_split(
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    table: Table,
    rows: numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]],
    *,
    tell: Callable[[str], None],
) -> Encoded:
    """Encode some rows of a table, or take them from the cache.

    Raises:
        UserError: Too many tokens are unknown: it is the wrong tokenizer.
    """
    encoded = encode_table(
        table.dataset.select(rows),
        f"{table.fingerprint}:{hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest()}",
        lambda batch: family.encode(batch, tokenizer),
        key=family.encoding_key(),
        tokenizer=tokenizer,
        cache_folder=cache_folder() / "encoded",
        max_unknown_rate=family.experiment.tokenizer.max_unknown_rate,
        source=table.source,
    )
    for message in encoded.messages():
        tell(message)
    return encoded


def _overlapping(
    family: Family, train: Table, dev: Table, tell: Callable[[str], None]
) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]:
    """Return the training rows to leave out because validation has their text too."""
    inputs = [role.name for role in family.roles if role.is_input]
    shared = numpy.asarray(overlap(train, dev, inputs), dtype=numpy.int64)
    if not len(shared):
        return shared
    on_overlap = family.experiment.data.on_overlap
    what = f"{len(shared):,} of {train.num_rows:,} training rows have a text that stands in {dev.source} too"
    first = f"first: row {shared[0] + 1} of {train.source}"
    if on_overlap == "error":
        raise UserError(what, where=first, hint="remove them, or set data.on_overlap=drop")
    if on_overlap == "warn":
        tell(f"{what}; they are kept (data.on_overlap=warn), so validation looks better than it is; {first}")
        return shared[:0]
    tell(f"{what}; they are left out (data.on_overlap=drop); {first}")
    return shared
