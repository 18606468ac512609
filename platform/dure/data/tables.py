"""Tables: files or rows in memory, checked row by row, to a memory-mapped data set with one text per role."""

from __future__ import annotations

import dataclasses
import hashlib
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dure.data.arrow_files import BATCH_ROWS, key_of, load_entry, written_entry
from dure.data.checking import CellReader, Checks, Field
from dure.data.decoding import known_encoding, recognise_encoding
from dure.data.formats import SUFFIXES, TEXT_SUFFIXES, Record, open_source
from dure.errors import UserError, nearest

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar")
_VERSION = 1
"""Part of every key: raised when the same file would give another table."""


@dataclass(frozen=True)
class Role:
    """A column that a family reads.

    Attributes:
        name: Name of the role in ``data.columns`` and in the rows that the family gets.
        column: Name of the table's column when ``data.columns`` does not say.
        required: Whether training needs it; prediction needs only roles with ``is_input``.
        is_input: Whether the model reads it, which makes it necessary for prediction too.
        is_id: Whether its values must be distinct.
        may_be_empty: Whether a required column may have empty cells.
        option: What the user sets to name another column; ``data.columns.<name>`` when not given.
        is_class: Whether its values name classes and are no text to learn words from.
        reader: What is made of its cells; they are values then, and no text to learn words from.
        of: Name of the role whose column this one reads too, by another reader.
    """

    name: str
    column: str
    required: bool = True
    is_input: bool = False
    is_id: bool = False
    may_be_empty: bool = False
    option: str | None = None
    is_class: bool = False
    reader: CellReader | None = None
    of: str | None = None


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
        absent: Optional role → column that ``data.columns`` names for it, but where no row has a value.
    """

    dataset: datasets.Dataset
    fingerprint: str
    source: str
    encoding: str | None = None
    skipped: tuple[Skipped, ...] = ()
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def messages(self) -> list[str]:
        """Return what the user should know about how the file was read, a line each."""
        lines = [f"{self.source}: read as CP949"] if self.encoding == "cp949" else []
        lines += [
            f"{self.source}: no row has a value in column '{column}' (data.columns.{role}); it is left out"
            for role, column in self.absent.items()
        ]
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
    An optional role is left out when no row has a value for it, which is told when ``columns`` names its column.
    Rows are checked while they stream to the cache, so that memory stays flat (ids take 16 bytes a row).

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
    check_is_table(path)
    fields = _fields(roles, columns, for_prediction)
    is_text = path.suffix.lower() in TEXT_SUFFIXES
    codec = known_encoding(encoding) if is_text and encoding is not None else None
    settings = [_settings(field) for field in fields]
    key = key_of("table", _VERSION, _content(path), path.suffix.lower(), settings, codec, on_bad_row)
    entry_path = cache_folder / "tables" / f"{key}.arrow"
    table = _load(entry_path, str(path))
    if table is not None:
        return table
    if is_text and codec is None:
        codec = recognise_encoding(path)
    nested = {field.column for field in fields if field.reader is not None}
    source = open_source(path, codec or "", nested)
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
        Field(
            role.name,
            role.of or role.name,
            role.required,
            role.required or role.is_id,
            role.is_id,
            is_named=False,
            option="data.columns",
            reader=role.reader,
        )
        for role in roles
        if role.required or any((role.of or role.name) in row for row in held)
    ]
    key = key_of("rows", _VERSION, [_settings(field) for field in fields], held)
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


def check_is_table(path: Path) -> None:
    """Check that a path is a file whose suffix names a format that can be read.

    Raises:
        UserError: It is not.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL in the name is a ValueError
        raise UserError("there is no such file", where=str(path), hint=_meant(path)) from None
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})", where=str(path)) from None
    if stat.S_ISDIR(mode):
        raise UserError("this is a folder, not a table", where=str(path), expected="a file")
    if not stat.S_ISREG(mode):
        raise UserError(
            "this is a pipe or a device, not a table",
            where=str(path),
            expected="a file, since it is read more than once",
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"tables with the suffix '{path.suffix}' cannot be read",
            where=str(path),
            expected=f"one of {', '.join(SUFFIXES)}",
            hint="unpack it first" if suffix in _PACKED else None,
        )


def _meant(path: Path) -> str | None:
    """Return a hint at the file beside a missing one that is most like it."""
    try:
        like = nearest(path.name, [file.name for file in path.parent.iterdir()])
    except (OSError, ValueError):
        return None
    return f"is {path.parent / like} meant?" if like else None


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror or error})", where=str(path)) from None


def _fields(roles: Sequence[Role], columns: Mapping[str, str], for_prediction: bool) -> list[Field]:
    names = [role.name for role in roles if role.of is None]
    for name in columns:
        if name not in names:
            like = nearest(name, names)
            raise UserError(
                f"there is no role '{name}'",
                where=f"data.columns.{name}",
                expected=f"one of {', '.join(names)}",
                hint=f"data.columns.{like}=…" if like else None,
            )
    fields = [
        Field(
            role=role.name,
            column=columns.get(role.of or role.name, role.column),
            column_needed=role.required,
            cell_needed=role.required and not role.may_be_empty,
            is_named=role.name in columns,
            is_id=role.is_id,
            option=role.option or f"data.columns.{role.of or role.name}",
            reader=role.reader,
        )
        for role in roles
        if role.is_input or role.is_id or not for_prediction
    ]
    _refuse_shared_columns(fields, {role.name for role in roles if role.of is not None})
    return fields


def _refuse_shared_columns(fields: Sequence[Field], may_share: Collection[str]) -> None:
    """Refuse that two roles read one column, but for an id's: what is predicted would stand in the input."""
    readers: dict[str, Field] = {}
    for field in fields:
        other = None if field.is_id or field.role in may_share else readers.setdefault(field.column, field)
        if other is not None and other is not field:
            raise UserError(
                f"column '{field.column}' is read as '{other.role}' and as '{field.role}'",
                where=" and ".join(dict.fromkeys((other.option, field.option))),
                expected="a column for each",
            )


def _settings(field: Field) -> list[object]:
    """Return what a field's texts depend on, as JSON values."""
    reader = field.reader
    if reader is None:
        return [*dataclasses.astuple(field)]
    from dure.data.encoding import code_fingerprint  # Brings datasets, which the command line does not need.

    plain = dataclasses.replace(field, reader=None)
    return [*dataclasses.astuple(plain), repr(reader), code_fingerprint(reader.read)]


def _fields_of_source(fields: Sequence[Field], columns: Sequence[str], source: str) -> list[Field]:
    """Check the columns that a file has; an id column that is there must be filled, even an optional one."""
    for field in fields:
        if field.column_needed and field.column not in columns:
            like = nearest(field.column, columns)
            raise UserError(
                f"there is no column '{field.column}' (role '{field.role}')",
                where=source,
                expected=f"one of its columns: {', '.join(dict.fromkeys(columns))}",
                hint=f"{field.option}={like or 'COLUMN'} names the column to read instead",
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


def _build(
    records: Iterator[Record],
    fields: Sequence[Field],
    source: str,
    codec: str | None,
    on_bad_row: Literal["error", "skip"],
    entry_path: Path,
) -> Table:
    """Check rows, write them to the cache and open it."""
    import pyarrow

    checks = Checks(fields, source, on_bad_row)
    schema = pyarrow.schema([(field.role, pyarrow.string()) for field in fields])
    num_kept = 0

    def facts() -> dict[str, Any]:
        return {
            "roles": [field.role for field in fields if field.column_needed or field.role in checks.filled],
            "encoding": codec,
            "absent": {
                field.role: field.column
                for field in fields
                if field.is_named and field.role not in checks.filled
            },
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
            raise checks.no_rows()
    table = _load(entry_path, source)
    if table is None:
        raise OSError(f"the cache entry {entry_path} vanished or changed while it was written")
    return table


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
        absent=facts["absent"],
    )
