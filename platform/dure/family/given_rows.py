"""Encoded rows that somebody made by hand: any map-style dataset as the rows of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import datasets

from dure.data.tables import table_from_rows
from dure.errors import UserError
from dure.family.contract import Family
from dure.family.corpus import cache_folder
from dure.family.loading import load_family
from dure.modeling.objectives import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MADE_HERE = ("length", "truncated")


def encoded_rows(
    family: Family, tokenizer: PreTrainedTokenizerBase, rows: Any, name: str
) -> datasets.Dataset:
    """Return rows as the loop reads them: in memory-mapped columns, without padding, each with its length.

    Rows are what the corpus made, or any map-style dataset: with ``len``, and mappings by number. They must hold what
    ``encode`` gives of a row of the embedded corpus; tensors and padding (by ``attention_mask``, of labels by -100) are
    taken off. Errors call them ``name``.

    Raises:
        UserError: It is no such dataset, or a row lacks what the family needs.
    """
    if isinstance(rows, datasets.Dataset) and "length" in rows.column_names:
        return rows
    by_name = isinstance(rows, Mapping) or hasattr(rows, "iloc")  # a table of columns, as pandas has them
    if by_name or not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        raise UserError(
            f"a {type(rows).__name__} has no rows by number",
            where=name,
            expected="a map-style dataset, with len(rows) and rows[0]",
        )
    if not len(rows):
        raise UserError("it has no row", where=name, expected="one row at least")
    needed = [each for each in _features(family, tokenizer) if each not in (*_MADE_HERE, "id")]
    made = [_row(rows[place], needed, f"{name}[{place}]", family) for place in range(len(rows))]
    return datasets.Dataset.from_list(made)


def hash_of(rows: datasets.Dataset) -> str:
    """Return a SHA-256 over encoded rows in their order."""
    digest = hashlib.sha256()
    columns = sorted(rows.column_names)
    for batch in rows.select_columns(columns).iter(batch_size=1000):
        digest.update(json.dumps([batch[column] for column in columns], default=str).encode())
    return digest.hexdigest()


def _features(family: Family, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the features of a row, by those of the first row of the family's embedded corpus."""
    table = table_from_rows(family.sample("train"), "sample train", family.roles, cache_folder())
    looked_at = load_family(family.experiment)  # the given rows may have other classes than the corpus
    looked_at.survey({"train": table})
    return list(looked_at.encode(table.dataset[:1], tokenizer))


def _row(given: Any, needed: list[str], where: str, family: Family) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise UserError(
            f"a row is a {type(given).__name__}",
            where=where,
            expected=f"a mapping with {', '.join(needed)}",
        )
    row = {key: value.tolist() if hasattr(value, "tolist") else value for key, value in given.items()}
    lacking = [key for key in needed if key not in row]
    if lacking:
        raise UserError(
            f"the row lacks '{lacking[0]}' (it holds {', '.join(map(str, row))})",
            where=where,
            expected=f"what {family.experiment.family} encodes: {', '.join(needed)}",
            hint="dure.load_datasets makes such rows of tables; of two lists dure.data.DialogueSummarizationDataset does",
        )
    mask = row.pop("attention_mask", None)
    if mask is not None:
        row["input_ids"] = [token for token, is_there in zip(row["input_ids"], mask, strict=True) if is_there]
    if isinstance(row.get("labels"), list):
        row["labels"] = [label for label in row["labels"] if label != IGNORED]
    row["length"] = len(row["input_ids"])
    row.setdefault("truncated", False)
    return row
