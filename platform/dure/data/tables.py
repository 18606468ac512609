"""Tables: files or rows in memory, checked row by row, to a memory-mapped data set with one text per role."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.data import USUAL, ReadingConfig
from dure.data.arrow_files import BATCH_ROWS, key_of, load_entry, written_entry
from dure.data.cells import Record
from dure.data.checking import Checks, file_and_row, shown_place
from dure.data.decoding import known_encoding, recognise_encoding
from dure.data.fields import ColumnNames, fields_of, fields_of_rows, present_fields, settings_of
from dure.data.fields import Role as Role
from dure.data.formats import TableSource, open_source
from dure.data.sources import TEXT_SUFFIXES, files_of, shown_source
from dure.errors import UserError, counted

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

_VERSION = 3
"""Part of every key: raised when the same file would give another table."""
_PLACE = "place of the row"
"""Column of the cache that no role has: the file and the row of every row."""
_BATCH_CHARACTERS = 1 << 22
"""Characters of rows in memory from which on they are written, however few rows they are."""


@dataclass(frozen=True)
class Skipped:
    """Rows that were left out for one reason: how many, and the places of the first."""

    reason: str
    count: int
    first_rows: tuple[int, ...]


@dataclass(frozen=True)
class LeftOut:
    """A row that was left out of a table to predict: its place, and its ids by the roles that ids have."""

    place: int
    ids: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A checked table."""

    dataset: datasets.Dataset
    """Memory-mapped rows with one text column per role that the file has."""
    fingerprint: str
    """Changes with the files' content and with every setting that they were read with."""
    source: str
    """The file's path, what names several of them, or the name of rows that were in memory."""
    files: tuple[str, ...]
    """Names of all files."""
    places: datasets.Dataset
    """Memory-mapped file and row of every row."""
    skipped: tuple[Skipped, ...] = ()
    """Rows that were left out."""
    left_out: tuple[LeftOut, ...] = ()
    """The same one by one, of a table to predict."""
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Optional role → column that ``data.columns`` names for it, but where no row has a value."""
    notes: tuple[tuple[int, str], ...] = ()
    """Number of a file, and what the user should know about how it was read."""
    num_composed: int = 0
    """Rows of which a text was brought to Unicode NFC."""
    num_replaced: int = 0
    """Rows with U+FFFD, which an earlier conversion put where it could not read a letter."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def place(self, row: int) -> str:
        """Return where a row of the table, counted from 0, stands in its file."""
        return shown_place(self.places[row][_PLACE], self.files)

    def row_places(self, start: int, stop: int) -> list[int]:
        """Return the places of some rows, ascending from file to file; to be compared with those left out."""
        places: list[int] = self.places[start:stop][_PLACE]
        return places

    def cells(self, role: str) -> Iterator[Any]:
        """Give the cells of a role, read in batches: one by one, as a column is iterated, takes a hundred times as long."""
        for batch in self.dataset.select_columns(role).iter(batch_size=1000):
            yield from batch[role]

    def content_hash(self) -> str:
        """Return a SHA-256 over the rows in their order, wherever they lie and however they were read."""
        digest = hashlib.sha256()
        roles = sorted(self.dataset.column_names)
        for batch in self.dataset.select_columns(roles).iter(batch_size=1000):
            digest.update(
                json.dumps([roles, [batch[role] for role in roles]], ensure_ascii=True).encode("ascii")
            )
        return digest.hexdigest()

    def messages(self) -> list[str]:
        """Return what the user should know about how the file was read, a line each."""
        lines = [f"{self.files[file]}: {note}" for file, note in self.notes]
        if self.num_composed:
            lines.append(
                f"{self.source}: {self.num_composed:,} of {self.num_rows:,} rows have letters in parts (Unicode NFD, as "
                "macOS writes), which are put together (data.normalize=none leaves them)"
            )
        if self.num_replaced:
            lines.append(
                f"{self.source}: {self.num_replaced:,} of {self.num_rows:,} rows hold U+FFFD (\ufffd), which an earlier "
                "conversion put where it could not read a letter; only the table it was made of has those letters"
            )
        lines += [
            f"{self.source}: no row has a value in column '{column}' (data.columns.{role}); it is left out"
            for role, column in self.absent.items()
        ]
        for skipped in self.skipped:
            rows = ", ".join(
                str(file_and_row(place)[1]) if len(self.files) == 1 else shown_place(place, self.files)
                for place in skipped.first_rows
            )
            more = ", …" if skipped.count > len(skipped.first_rows) else ""
            number = counted(skipped.count, "row")
            named = f"{number.rpartition(' ')[2]} {rows}" if len(self.files) == 1 else rows
            lines.append(f"{self.source}: {number} skipped: {skipped.reason} ({named}{more})")
        return lines

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Table:
        """Return the table of these rows, in this order; costs sixteen bytes of memory a row."""
        import numpy as np

        chosen = np.asarray(indices, dtype=np.int64)
        digest = hashlib.sha256(chosen.tobytes()).hexdigest()
        return dataclasses.replace(
            self,
            dataset=self.dataset.select(chosen),
            places=self.places.select(chosen),
            fingerprint=key_of(self.fingerprint, digest),
        )


def read_table(
    source: str | Path | Sequence[str],
    roles: Sequence[Role],
    columns: ColumnNames,
    *,
    cache_folder: Path,
    for_prediction: bool = False,
    reading: ReadingConfig = USUAL,
) -> Table:
    """Read a table of one or several files; files that were read before are only mapped into memory.

    Text stays as it is but for Unicode NFC, numbers become text. A cell is empty when it is blank, null, NaN or the
    word ``nan``. An optional role is left out when no row has a value for it, which is reported when ``columns`` names
    its column. Rows are checked while they stream to the cache, so that memory stays flat (ids take 16 bytes a row).
    ``columns`` names those that are not the role's own (``data.columns``). Where it is ``for_prediction``, only inputs
    and ids are read and needed, and rows that are skipped are remembered. Bad rows are those with an empty cell, a
    doubled id, another number of cells than columns, or JSON that is no object of texts and numbers.

    Raises:
        UserError: A file, a column or a row is not as it must be; names the place and the remedy.
    """
    files = files_of(source)
    names = tuple(map(str, files))
    shown = shown_source(source, files)
    fields = fields_of(roles, columns, reading, for_prediction=for_prediction)
    given = None
    if reading.encoding is not None and any(file.suffix.lower() in TEXT_SUFFIXES for file in files):
        given = known_encoding(reading.encoding)
    states = [_state(file) for file in files]
    content = [[_content(file), file.suffix.lower()] for file in files]
    settings = [settings_of(field) for field in fields]
    how = [given, reading.on_bad_row, reading.quoting, reading.header, for_prediction]
    entry_path = cache_folder / "tables" / f"{key_of('table', _VERSION, content, settings, how)}.arrow"
    table = _load(entry_path, shown, names)
    if table is not None:
        return table
    checks = Checks(fields, names, reading.on_bad_row, keeps_left_out=for_prediction)
    notes: list[tuple[int, str]] = []
    nested = {column for field in fields if field.role.reader is not None for column in field.columns}
    codecs = [_codec(file, reading) for file in files]

    def records() -> Iterator[Record]:
        for number, (file, codec) in enumerate(zip(files, codecs, strict=True)):
            opened = open_source(file, codec, reading, nested)
            notes.extend((number, note) for note in opened.notes)
            if codec == "cp949":
                notes.append((number, "read as CP949"))
            present = present_fields(fields, opened.columns, str(file), header=reading.header)
            checks.begin(number, present)
            yield from opened.records(
                [*dict.fromkeys(column for field in present for column in field.columns)]
            )
            if _state(file) != states[number]:
                raise UserError(
                    "the file was changed while it was read",
                    where=str(file),
                    expected="a file that nobody writes to",
                    hint="the same command, once it is whole",
                )

    return _build(records(), checks, shown, names, entry_path, notes)


def columns_of(source: str | Path | Sequence[str], reading: ReadingConfig) -> list[str]:
    """Return the columns of a table's first file.

    Raises:
        UserError: There is no such file, or it is damaged.
    """
    return _first_file(source, reading).columns


def first_cells(
    source: str | Path | Sequence[str], reading: ReadingConfig, columns: Sequence[str]
) -> dict[str, str]:
    """Return what stands in the first row, by column; lists and objects as JSON text, and nothing for empty cells.

    Of the columns those are given that the table has.

    Raises:
        UserError: There is no such file, or it is damaged.
    """
    opened = _first_file(source, reading, nested=columns)
    present = [column for column in columns if column in opened.columns]
    first = next(iter(opened.records(present)), None)
    return {} if first is None else {name: cell for name, cell in first.cells.items() if cell}


def _first_file(
    source: str | Path | Sequence[str], reading: ReadingConfig, nested: Sequence[str] = ()
) -> TableSource:
    file = files_of(source)[0]
    return open_source(file, _codec(file, reading), reading, nested)


def _codec(file: Path, reading: ReadingConfig) -> str:
    """Return the codec of a text table; nothing of others."""
    if file.suffix.lower() not in TEXT_SUFFIXES:
        return ""
    return known_encoding(reading.encoding) if reading.encoding else recognise_encoding(file)


def table_from_rows(
    rows: Iterable[Mapping[str, str]],
    source: str,
    roles: Sequence[Role],
    cache_folder: Path,
    reading: ReadingConfig = USUAL,
) -> Table:
    """Make a table of rows in memory (role → text), checked like those of a file; bad rows are errors.

    Raises:
        UserError: A role or a text is missing, an id stands twice, or there are no rows.
    """
    held = [dict(row) for row in rows]
    fields = fields_of_rows(roles, held, reading)
    key = key_of("rows", _VERSION, [settings_of(field) for field in fields], held)
    entry_path = cache_folder / "tables" / f"{key}.arrow"
    table = _load(entry_path, source, (source,))
    if table is not None:
        return table
    records = (Record(number, None, row) for number, row in enumerate(held, start=1))
    checks = Checks(fields, (source,), "error")
    return _build(records, checks, source, (source,), entry_path, [])


def draw_rows(num_rows: int, max_rows: int, seed: int) -> NDArray[np.int64]:
    """Draw at most ``max_rows`` of so many rows at random; returns their numbers, ascending.

    With one seed, the rows of a smaller draw are among those of a larger one.
    """
    import numpy as np

    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[:max_rows]).astype(np.int64)


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when somebody writes to a file; nothing where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror or error})", where=str(path)) from None


def _build(
    records: Iterator[Record],
    checks: Checks,
    source: str,
    files: tuple[str, ...],
    entry_path: Path,
    notes: Sequence[tuple[int, str]],
) -> Table:
    """Check rows, write them to the cache and open it; ``notes`` may grow while the rows are read."""
    import pyarrow

    roles = [field.name for field in checks.fields]
    schema = pyarrow.schema([*((role, pyarrow.string()) for role in roles), (_PLACE, pyarrow.int64())])
    num_kept = 0

    with written_entry(entry_path, lambda: _facts(checks) | {"notes": notes}) as append:
        batch: list[list[str]] = []
        places: list[int] = []
        size = 0

        def flush() -> None:
            arrays = [pyarrow.array(texts, pyarrow.string()) for texts in zip(*batch, strict=True)]
            append(pyarrow.record_batch([*arrays, pyarrow.array(places, pyarrow.int64())], schema=schema))
            batch.clear()
            places.clear()

        for record in records:
            checked = checks.texts(record)
            if checked is not None:
                place, texts = checked
                places.append(place)
                batch.append(texts)
                num_kept += 1
                size += sum(map(len, texts))
                if len(batch) == BATCH_ROWS or size > _BATCH_CHARACTERS:
                    flush()
                    size = 0
        if batch:
            flush()
        if num_kept == 0:
            raise checks.no_rows()
    table = _load(entry_path, source, files)
    if table is None:
        raise OSError(f"the cache entry {entry_path} vanished or changed while it was written")
    return table


def _facts(checks: Checks) -> dict[str, Any]:
    """Return what is kept beside the rows of a table."""
    return {
        "roles": checks.kept(),
        "absent": {
            field.name: field.column
            for field in checks.fields
            if field.is_named and field.name not in checks.filled
        },
        "skipped": [[reason, count, rows] for reason, (count, rows) in checks.skipped.items()],
        "left_out": checks.left_out,
        "num_composed": checks.num_composed,
        "num_replaced": checks.num_replaced,
    }


def _load(entry_path: Path, source: str, files: tuple[str, ...]) -> Table | None:
    entry = load_entry(entry_path)
    if entry is None:
        return None
    dataset, facts = entry
    return Table(
        dataset=dataset.select_columns(facts["roles"]),
        fingerprint=entry_path.stem,
        source=source,
        files=files,
        places=dataset.select_columns([_PLACE]),
        skipped=tuple(Skipped(reason, count, tuple(rows)) for reason, count, rows in facts["skipped"]),
        left_out=tuple(LeftOut(place, ids) for place, ids in facts["left_out"]),
        absent=facts["absent"],
        notes=tuple((number, note) for number, note in facts.get("notes", ())),
        num_composed=facts["num_composed"],
        num_replaced=facts["num_replaced"],
    )
