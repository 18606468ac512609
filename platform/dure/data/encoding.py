"""Text to token ids, once: an encoded table is kept as a memory-mapped Arrow file and found again by its key."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from dure.data.arrow_files import BATCH_ROWS, key_of, load_entry, written_entry
from dure.errors import UserError, counted, named

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[dict[str, list[str]]], dict[str, list[Any]]]
"""Rows (role → texts) to features, as ``Family.encode`` gives them."""

_NAMED_ROWS = 5
_OF_A_ROW = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What a text can make its family's code raise."""
_VERSION = 2
"""Part of every key: raised when the same rows would be kept differently."""


@dataclass(frozen=True)
class Encoded:
    """An encoded table."""

    dataset: datasets.Dataset
    """Memory-mapped features, one row for each row of the table, in its order."""
    source: str
    """Name of the table."""
    num_truncated: int
    """Rows that lost text because they were too long."""
    unknown_rate: float
    """Part of the input tokens that the tokenizer does not know, special tokens left out."""
    from_cache: bool
    """Whether the rows were encoded before."""
    max_unknown_rate: float = 1.0
    """Largest part of unknown tokens."""
    num_unknown_rows: int = 0
    """Rows with a larger part of unknown tokens."""
    unknown_rows: tuple[int, ...] = ()
    """Numbers of the worst of them, from 0."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def messages(self, place: Callable[[int], str] = lambda row: f"row {row + 1}") -> list[str]:
        """Return what the user should know about the encoded rows, a line each."""
        cached = ", from the cache" if self.from_cache else ""
        part = self.num_truncated / self.num_rows
        lines = [
            f"{self.source}: {counted(self.num_rows, 'row')}, {self.num_truncated:,} truncated ({part:.1%}), "
            f"{self.unknown_rate:.2%} unknown tokens{cached}"
        ]
        if self.num_unknown_rows:
            named = ", ".join(map(place, self.unknown_rows))
            more = ", …" if self.num_unknown_rows > len(self.unknown_rows) else ""
            noun = "row has" if self.num_unknown_rows == 1 else "rows have"
            lines.append(
                f"{self.source}: {self.num_unknown_rows:,} {noun} more than {self.max_unknown_rate:.1%} unknown tokens "
                f"(tokenizer.max_unknown_rate), of which the model learns little: {named}{more}"
            )
        return lines


def encode_table(
    dataset: datasets.Dataset,
    fingerprint: str,
    encode: Encode,
    *,
    key: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    cache_folder: Path,
    max_unknown_rate: float,
    source: str,
    place: Callable[[int], str] = lambda row: f"row {row + 1}",
) -> Encoded:
    """Encode a table batch by batch into the cache, or open what was encoded before; memory stays flat.

    Rows are encoded again when any of these changed: the table, the tokenizer, ``key``, or the source files of
    ``encode`` (:func:`code_fingerprint`). So give ``encode`` as the family's own method, or as a
    ``functools.partial`` of it: a lambda would hide its file. Whole numbers inside lists are kept in 32 bits. What
    identifies the rows is ``Table.fingerprint``; ``encode`` must give ``input_ids`` without padding and ``truncated``,
    and ``key`` has the settings that it depends on, as JSON values. ``place`` says where a row, counted from 0, stands.

    Raises:
        UserError: More of the tokens are unknown than ``max_unknown_rate``, or a row cannot be encoded.
    """
    code, tokens = code_fingerprint(encode), tokenizer_fingerprint(tokenizer)
    versions = [_VERSION, version("datasets").split(".")[0]]
    entry_key = key_of("encoded", versions, fingerprint, code, tokens, dict(key))
    path = cache_folder / "encoded" / f"{entry_key}.arrow"
    entry = load_entry(path)
    from_cache = entry is not None
    if entry is None:
        counts = _Counts(tokenizer)
        _encode_into(path, dataset, _naming_rows(encode, source, place), counts)
        entry = load_entry(path)
    if entry is None:
        raise OSError(f"the cache entry {path} vanished or changed while it was written")
    rows, facts = entry
    encoded = Encoded(
        dataset=rows,
        source=source,
        num_truncated=facts["num_truncated"],
        unknown_rate=facts["num_unknown"] / max(facts["num_tokens"], 1),
        from_cache=from_cache,
        max_unknown_rate=max_unknown_rate,
        num_unknown_rows=sum(
            rows for unknown, tokens, rows in facts["unknown_in_rows"] if unknown > max_unknown_rate * tokens
        ),
        unknown_rows=tuple(row for rate, row in facts["worst_rows"] if rate > max_unknown_rate),
    )
    _require_known(facts, max_unknown_rate, source)
    return encoded


def encode_rows(
    rows: Mapping[str, list[str]],
    encode: Encode,
    *,
    tokenizer: PreTrainedTokenizerBase,
    max_unknown_rate: float,
    source: str,
) -> dict[str, list[Any]]:
    """Encode a few rows in memory, as :func:`encode_table` does with a table and its cache.

    Raises:
        UserError: More of the tokens are unknown than ``max_unknown_rate``, or a row cannot be encoded.
    """
    features = _naming_rows(encode, source, lambda row: f"row {row + 1}")({**rows}, 0)
    _check_features(features, len(next(iter(rows.values()))))
    counts = _Counts(tokenizer)
    counts.add(rows, features)
    _require_known(counts.facts(), max_unknown_rate, source)
    return features


def _require_known(facts: Mapping[str, Any], max_unknown_rate: float, source: str) -> None:
    """Raise UserError when more tokens are unknown than there may be."""
    rate = facts["num_unknown"] / max(facts["num_tokens"], 1)
    if rate > max_unknown_rate:
        example = f", such as '{facts['unknown_word']}'" if facts["unknown_word"] else ""
        raise UserError(
            f"the tokenizer does not know {rate:.1%} of the tokens{example}",
            where=source,
            expected=f"at most {max_unknown_rate:.1%} (tokenizer.max_unknown_rate)",
            hint="this is likely the wrong tokenizer for this text, or its vocabulary was not loaded",
        )


def token_ids(
    tokenizer: PreTrainedTokenizerBase, max_length: int, **texts: list[str]
) -> tuple[list[list[int]], list[bool]]:
    """Return the ids of every text, at most ``max_length``, and whether each one was cut.

    Control tokens count. The texts are one list, under the tokenizer's own keyword: ``text`` or ``text_target``.
    """
    ids: list[list[int]] = tokenizer(**texts, truncation=True, max_length=max_length)["input_ids"]
    cut = [False] * len(ids)
    # Only a text that fills the length can have been cut; these few are looked at again.
    full = [index for index, row in enumerate(ids) if len(row) >= max_length]
    if full:
        ((name, every),) = texts.items()
        whole = tokenizer(**{name: [every[index] for index in full]}, truncation=False, verbose=False)[
            "input_ids"
        ]
        for index, row in zip(full, whole, strict=True):
            cut[index] = len(row) > max_length
    return ids, cut


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a SHA-256 of everything in a tokenizer that decides how text and conversations become ids.

    The padding and truncation that the last call left in a fast tokenizer are no part of it.
    """
    settings = {
        "class": type(tokenizer).__name__,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "max_length": tokenizer.model_max_length,
        "sides": [tokenizer.truncation_side, tokenizer.padding_side],
        "split_special": bool(getattr(tokenizer, "split_special_tokens", False)),
        "chat_template": tokenizer.chat_template,
    }
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        backend.pop("truncation", None)
        backend.pop("padding", None)
        return key_of(settings, backend)
    added = sorted((index, str(token)) for index, token in tokenizer.added_tokens_decoder.items())
    return key_of(settings, tokenizer.get_vocab(), added)


def code_fingerprint(function: Callable[..., Any]) -> str:
    """Return a SHA-256 of the source files that define a function and the class whose method it is.

    All files of a package's folder count, since a family may be in several. It follows ``functools.partial``. A function
    without a source file counts by its name alone.
    """
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    parts = [f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"]
    for defined in (function, None if owner is None else type(owner)):
        try:
            file = None if defined is None else inspect.getsourcefile(inspect.unwrap(defined))
        except TypeError:
            file = None
        if file is not None and Path(file).is_file():
            folder = Path(file).parent
            files = sorted(folder.glob("*.py")) if (folder / "__init__.py").is_file() else [Path(file)]
            # An editor's lock is a link to nowhere.
            parts += (hashlib.sha256(each.read_bytes()).hexdigest() for each in files if each.is_file())
    return key_of(*parts)


class _Counts:
    """What is counted while rows are encoded."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._num_rows = 0
        special = set(tokenizer.all_special_ids)
        unknown = tokenizer.unk_token_id
        # Some byte-level tokenizers know every text and give their end token as the unknown one.
        ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._unknown = None if unknown in ends else unknown
        self._special = np.array(sorted(special - {self._unknown}), dtype=np.int64)
        self.num_truncated = self.num_tokens = self.num_unknown = 0
        self.unknown_word: str | None = None
        self._unknown_in_rows: Counter[tuple[int, int]] = Counter()
        self._worst_rows: list[tuple[float, int]] = []

    def add(self, rows: Mapping[str, Sequence[str]], features: Mapping[str, Sequence[Any]]) -> None:
        """Count one batch."""
        self.num_truncated += int(sum(map(bool, features["truncated"])))
        lists = [np.asarray(ids, dtype=np.int64) for ids in features["input_ids"]]
        tokens = np.concatenate(lists)
        self.num_tokens += len(tokens) - int(np.isin(tokens, self._special).sum())
        if self._unknown is None:
            return
        num_unknown = int((tokens == self._unknown).sum())
        self.num_unknown += num_unknown
        if num_unknown:
            self._add_rows(lists)
        self._num_rows += len(lists)
        if num_unknown and self.unknown_word is None:
            row = next(row for row, ids in enumerate(lists) if self._unknown in ids)
            texts = sorted((texts[row] for texts in rows.values()), key=len, reverse=True)
            self.unknown_word = next(self._unknown_words(texts), None)

    def _add_rows(self, lists: Sequence[NDArray[np.int64]]) -> None:
        """Count the rows of a batch by their unknown tokens and all their tokens, and remember the worst."""
        for row, ids in enumerate(lists, start=self._num_rows):
            num_unknown = int((ids == self._unknown).sum())
            num_tokens = len(ids) - int(np.isin(ids, self._special).sum())
            if num_unknown:
                self._unknown_in_rows[num_unknown, num_tokens] += 1
                rates = [*self._worst_rows, (num_unknown / num_tokens, row)]
                self._worst_rows = sorted(rates, key=lambda pair: -pair[0])[:_NAMED_ROWS]

    def _unknown_words(self, texts: Sequence[str]) -> Iterator[str]:
        for text in texts:
            for word in text.split():
                if self._unknown in self._tokenizer(word, add_special_tokens=False)["input_ids"]:
                    yield word

    def facts(self) -> dict[str, Any]:
        """Return what is kept beside the rows."""
        return {
            "num_truncated": self.num_truncated,
            "num_tokens": self.num_tokens,
            "num_unknown": self.num_unknown,
            "unknown_word": self.unknown_word,
            "unknown_in_rows": [[*pair, rows] for pair, rows in self._unknown_in_rows.items()],
            "worst_rows": self._worst_rows,
        }


def _encode_into(
    path: Path,
    dataset: datasets.Dataset,
    encode: Callable[[dict[str, list[str]], int], dict[str, list[Any]]],
    counts: _Counts,
) -> None:
    schema: pyarrow.Schema | None = None
    with written_entry(path, counts.facts) as append:
        for start in range(0, len(dataset), BATCH_ROWS):
            rows = dataset[start : start + BATCH_ROWS]
            num_rows = len(next(iter(rows.values())))
            features = encode(rows, start)
            _check_features(features, num_rows)
            counts.add(rows, features)
            table = pyarrow.table(features)
            if schema is None:
                schema = pyarrow.schema([(field.name, _narrow(field.type)) for field in table.schema])
            for batch in table.cast(schema).combine_chunks().to_batches():
                append(batch)


def _naming_rows(
    encode: Encode, source: str, place: Callable[[int], str]
) -> Callable[[dict[str, list[str]], int], dict[str, list[Any]]]:
    """Return ``encode`` with the number of a batch's first row, so that a row that cannot be encoded is named.

    A :class:`UserError` of a row that names no place says what to do about it by itself.
    """

    def encode_batch(rows: dict[str, list[str]], start: int) -> dict[str, list[Any]]:
        try:
            return encode(rows)
        except (*_OF_A_ROW, UserError):
            for row in range(len(next(iter(rows.values())))):
                try:
                    encode({role: texts[row : row + 1] for role, texts in rows.items()})
                except (*_OF_A_ROW, UserError) as error:
                    if isinstance(error, UserError) and error.where is not None:
                        raise
                    problem = f"the row cannot be encoded ({named(error, 160)})"
                    ours = UserError(problem, hint="correct or remove the row")
                    told = error if isinstance(error, UserError) else ours
                    raise told.at(f"{source}, {place(start + row)}") from error
            raise

    return encode_batch


def _check_features(features: Mapping[str, Sequence[Any]], num_rows: int) -> None:
    """Raise ValueError when a family's ``encode`` breaks its contract."""
    for name in ("input_ids", "truncated"):
        if name not in features:
            raise ValueError(f"encode gave no '{name}', only {', '.join(features)}")
    for name, values in features.items():
        if len(values) != num_rows:
            raise ValueError(f"encode gave {len(values)} values of '{name}' for {num_rows} rows")


def _narrow(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type to keep: whole numbers inside lists, such as token ids, in 32 bits."""
    if not pyarrow.types.is_list(kind):
        return kind
    inner = kind.value_type
    if pyarrow.types.is_int64(inner) or pyarrow.types.is_null(inner):
        return pyarrow.list_(pyarrow.int32())
    return pyarrow.list_(_narrow(inner))
