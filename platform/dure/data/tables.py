"""Tables: files or rows in memory, checked row by row, to a memory-mapped data set with one text per role."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dure.data.arrow_files import BATCH_ROWS, key_of, load_entry, written_entry
from dure.data.decoding import known_encoding, recognise_encoding
from dure.data.formats import SUFFIXES, TEXT_SUFFIXES, Record, RowProblem, open_source
from dure.errors import UserError, nearest

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

_VERSION = 1
"""Part of every key: raised when the same file would give another table."""
_FIRST_ROWS = 5
"""Row numbers kept for each reason to skip rows."""
_MISSING_WORDS = ("nan", "<na>")
"""How pandas writes a missing value as text. ``null`` and ``none`` are not among them: they are words."""


@dataclass(frozen=True)
class Role:
    """A column that a family reads.

    Attributes:
        name: Name of the role in ``data.columns`` and in the rows that the family gets.
        column: Name of the table's column when ``data.columns`` does not say.
        required: Whether training needs it; prediction needs only roles with ``is_input``.
        is_input: Whether the model reads it, which makes it necessary for prediction too.
        is_id: Whether its values must be distinct.
    """

    name: str
    column: str
    required: bool = True
    is_input: bool = False
    is_id: bool = False


@dataclass(frozen=True)
class Skipped:
    """Rows that were left out for one reason: how many, and the numbers of the first."""

    reason: str
    count: int
    first_rows: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """A checked table.

    Attributes:
        dataset: Memory-mapped rows with one text column per role that the file has.
        fingerprint: Changes with the file's content and with every setting that it was read with.
        source: The file's path, or the name of rows that were in memory.
        encoding: Codec of a text file; None for others.
        skipped: Rows that were left out.
    """

    dataset: datasets.Dataset
    fingerprint: str
    source: str
    encoding: str | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def messages(self) -> list[str]:
        """Return what the user should know about how the file was read, a line each."""
        lines = [f"{self.source}: read as CP949"] if self.encoding == "cp949" else []
        for skipped in self.skipped:
            rows = ", ".join(map(str, skipped.first_rows))
            more = ", …" if skipped.count > len(skipped.first_rows) else ""
            noun = "row" if skipped.count == 1 else "rows"
            lines.append(
                f"{self.source}: {skipped.count:,} {noun} skipped: {skipped.reason} ({noun} {rows}{more})"
            )
        return lines

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Table:
        """Return the table of these rows, in this order; costs eight bytes of memory a row."""
        import numpy as np

        places = np.asarray(indices, dtype=np.int64)
        digest = hashlib.sha256(places.tobytes()).hexdigest()
        return dataclasses.replace(
            self, dataset=self.dataset.select(places), fingerprint=key_of(self.fingerprint, digest)
        )


@dataclass(frozen=True)
class _Field:
    """A role as it is read from one table: whether its column and its cells must be there."""

    role: str
    column: str
    column_needed: bool
    cell_needed: bool
    is_id: bool


def read_table(
    path: Path,
    roles: Sequence[Role],
    columns: Mapping[str, str],
    *,
    cache_folder: Path,
    for_prediction: bool = False,
    encoding: str | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
) -> Table:
    """Read a CSV, TSV, JSON-lines or Parquet file; a file that was read before is only mapped into memory.

    Text stays as it is, numbers become text. A cell is empty when it is blank, null, NaN or the word ``nan``.
    An optional role is left out when no row has it. Rows are checked while they stream to the cache, so that
    memory stays flat (ids take 16 bytes a row).

    Args:
        path: The file; its suffix says the format.
        roles: What the family reads.
        columns: Role → column name, where it is not the role's own (``data.columns``).
        cache_folder: Where the memory-mapped rows are kept.
        for_prediction: Whether only inputs and ids are read and needed.
        encoding: Encoding of a text file; UTF-8 and CP949 are recognised when it is not given.
        on_bad_row: Whether a bad row is an error or is skipped and counted. Bad are rows with an empty cell,
            a doubled id, another number of cells than columns, or JSON that is no object of texts and numbers.

    Raises:
        UserError: The file, a column or a row is not as it must be; names the place and the remedy.
    """
    _check_is_table(path)
    fields = _fields(roles, columns, for_prediction)
    is_text = path.suffix.lower() in TEXT_SUFFIXES
    codec = known_encoding(encoding) if is_text and encoding is not None else None
    settings = [dataclasses.astuple(field) for field in fields]
    key = key_of("table", _VERSION, _content(path), path.suffix.lower(), settings, codec, on_bad_row)
    entry_path = cache_folder / "tables" / f"{key}.arrow"
    table = _load(entry_path, str(path))
    if table is not None:
        return table
    if is_text and codec is None:
        codec = recognise_encoding(path)
    source = open_source(path, codec or "")
    fields = _fields_of_source(fields, source.columns, str(path))
    records = source.records([field.column for field in fields])
    return _build(records, fields, str(path), codec, on_bad_row, entry_path)


def table_from_rows(
    rows: Iterable[Mapping[str, str]], source: str, roles: Sequence[Role], cache_folder: Path
) -> Table:
    """Make a table of rows in memory (role → text), checked like those of a file.

    Raises:
        UserError: A role or a text is missing, an id stands twice, or there are no rows.
    """
    held = [dict(row) for row in rows]
    fields = [
        _Field(role.name, role.name, role.required, role.required or role.is_id, role.is_id)
        for role in roles
        if role.required or any(role.name in row for row in held)
    ]
    key = key_of("rows", _VERSION, [dataclasses.astuple(field) for field in fields], held)
    entry_path = cache_folder / "tables" / f"{key}.arrow"
    table = _load(entry_path, source)
    if table is not None:
        return table
    records = (Record(number, None, row) for number, row in enumerate(held, start=1))
    return _build(records, fields, source, None, "error", entry_path)


def select_rows(table: Table, max_rows: int, seed: int) -> NDArray[np.int64]:
    """Draw at most ``max_rows`` rows at random; returns their indices in the order of the table.

    With one seed, the rows of a smaller draw are among those of a larger one.
    """
    import numpy as np

    order = np.random.default_rng(seed).permutation(table.num_rows)
    return np.sort(order[:max_rows]).astype(np.int64)


def _check_is_table(path: Path) -> None:
    if path.is_dir():
        raise UserError("this is a folder, not a table", where=str(path), expected="a file")
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        like = nearest(path.name, siblings)
        hint = f"is {path.parent / like} meant?" if like else None
        raise UserError("there is no such file", where=str(path), hint=hint)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"tables with the suffix '{path.suffix}' cannot be read",
            where=str(path),
            expected=f"one of {', '.join(SUFFIXES)}",
        )


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror or error})", where=str(path)) from None


def _fields(roles: Sequence[Role], columns: Mapping[str, str], for_prediction: bool) -> list[_Field]:
    names = [role.name for role in roles]
    for name in columns:
        if name not in names:
            like = nearest(name, names)
            raise UserError(
                f"there is no role '{name}'",
                where=f"data.columns.{name}",
                expected=f"one of {', '.join(names)}",
                hint=f"data.columns.{like}=…" if like else None,
            )
    return [
        _Field(
            role=role.name,
            column=columns.get(role.name, role.column),
            column_needed=role.required or role.name in columns,
            cell_needed=role.required,
            is_id=role.is_id,
        )
        for role in roles
        if role.is_input or role.is_id or not for_prediction
    ]


def _fields_of_source(fields: Sequence[_Field], columns: Sequence[str], source: str) -> list[_Field]:
    """Check the columns that a file has; an id column that is there must be filled, even an optional one."""
    for field in fields:
        if field.column_needed and field.column not in columns:
            like = nearest(field.column, columns)
            raise UserError(
                f"there is no column '{field.column}' (role '{field.role}')",
                where=source,
                expected=f"one of its columns: {', '.join(dict.fromkeys(columns))}",
                hint=f"data.columns.{field.role}={like or 'COLUMN'} names the column to read instead",
            )
        if columns.count(field.column) > 1:
            raise UserError(
                f"{columns.count(field.column)} columns are called '{field.column}'",
                where=source,
                expected="distinct column names",
                hint="rename all but the one that should be read",
            )
    return [
        dataclasses.replace(field, cell_needed=field.cell_needed or (field.is_id and field.column in columns))
        for field in fields
    ]


class _Checks:
    """What every row goes through, and what became of the rows."""

    def __init__(self, fields: Sequence[_Field], source: str, on_bad_row: Literal["error", "skip"]) -> None:
        from dure.data.identifiers import IdIndex  # Brings numpy, which the command line does not need.

        self._fields = fields
        self._source = source
        self._skip = on_bad_row == "skip"
        self._ids = {field.role: IdIndex() for field in fields if field.is_id}
        self.num_seen = 0
        self.filled: set[str] = set()
        self.skipped: dict[str, tuple[int, list[int]]] = {}

    def texts(self, record: Record) -> list[str] | None:
        """Return the row's text by field, or None when it is skipped."""
        self.num_seen += 1
        texts: list[str] = []
        problem = record.problem
        if problem is None:
            texts = [record.cells.get(field.column) or "" for field in self._fields]
            problem = self._empty_cell(record, texts) or self._doubled_id(record, texts)
        if problem is None:
            self.filled.update(field.role for field, text in zip(self._fields, texts, strict=True) if text)
            return texts
        if not self._skip:
            line = f" (line {record.line})" if record.line is not None else ""
            raise UserError(
                problem.text,
                where=f"{self._source}, row {record.number}{line}",
                hint="correct the row, or leave out all such rows with data.on_bad_row=skip",
            )
        count, first_rows = self.skipped.setdefault(problem.kind, (0, []))
        if count < _FIRST_ROWS:
            first_rows.append(record.number)
        self.skipped[problem.kind] = (count + 1, first_rows)
        return None

    def _empty_cell(self, record: Record, texts: list[str]) -> RowProblem | None:
        for place, field in enumerate(self._fields):
            text = texts[place].strip()
            if text and text.lower() not in _MISSING_WORDS:
                continue
            if not field.cell_needed:
                texts[place] = ""
                continue
            kind = f"column '{field.column}' is empty"
            if text:
                return RowProblem(kind, f"column '{field.column}' holds '{text}', a missing value as text")
            if field.column not in record.cells:
                return RowProblem(kind, f"the row has no '{field.column}'")
            return RowProblem(kind, kind)
        return None

    def _doubled_id(self, record: Record, texts: Sequence[str]) -> RowProblem | None:
        for field, text in zip(self._fields, texts, strict=True):
            if not field.is_id or not text:
                continue
            first = self._ids[field.role].add(text, record.number)
            if first is not None:
                return RowProblem(
                    f"column '{field.column}' repeats an id",
                    f"column '{field.column}' repeats the id '{text}' of row {first}",
                )
        return None


def _build(
    records: Iterator[Record],
    fields: Sequence[_Field],
    source: str,
    codec: str | None,
    on_bad_row: Literal["error", "skip"],
    entry_path: Path,
) -> Table:
    """Check rows, write them to the cache and open it."""
    import pyarrow

    checks = _Checks(fields, source, on_bad_row)
    schema = pyarrow.schema([(field.role, pyarrow.string()) for field in fields])
    num_kept = 0

    def facts() -> dict[str, Any]:
        return {
            "roles": [field.role for field in fields if field.role in checks.filled],
            "encoding": codec,
            "skipped": [[reason, count, rows] for reason, (count, rows) in checks.skipped.items()],
        }

    with written_entry(entry_path, facts) as append:
        batch: list[list[str]] = []

        def flush() -> None:
            arrays = [pyarrow.array(texts, pyarrow.string()) for texts in zip(*batch, strict=True)]
            append(pyarrow.record_batch(arrays, schema=schema))
            batch.clear()

        for record in records:
            texts = checks.texts(record)
            if texts is not None:
                batch.append(texts)
                num_kept += 1
                if len(batch) == BATCH_ROWS:
                    flush()
        if batch:
            flush()
        if num_kept == 0:
            raise _no_rows(checks, source)
    table = _load(entry_path, source)
    if table is None:
        raise OSError(f"the cache entry {entry_path} vanished or changed while it was written")
    return table


def _no_rows(checks: _Checks, source: str) -> UserError:
    if checks.num_seen == 0:
        return UserError("there are no rows", where=source, expected="at least one row")
    reasons = "; ".join(f"{reason}: {count:,}" for reason, (count, _) in checks.skipped.items())
    return UserError(
        f"no row is left, all {checks.num_seen:,} were skipped ({reasons})",
        where=source,
        hint="data.on_bad_row=error shows the first bad row in full",
    )


def _load(entry_path: Path, source: str) -> Table | None:
    entry = load_entry(entry_path)
    if entry is None:
        return None
    dataset, facts = entry
    return Table(
        dataset=dataset.select_columns(facts["roles"]),
        fingerprint=entry_path.stem,
        source=source,
        encoding=facts["encoding"],
        skipped=tuple(Skipped(reason, count, tuple(rows)) for reason, count, rows in facts["skipped"]),
    )
