"""Roles that a family reads, and the columns of a table that they are read from."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dure.config.data import ReadingConfig
from dure.data.canonical import canonical, folded
from dure.errors import UserError, nearest, shell_word

_LONG_NAME = 40
_MANY_WORDS = 5
_MOST_NAMES = 30
_SENTENCE = re.compile(r"[.?!。…]\s*$|^[-+]?[0-9]+(\.[0-9]+)?$")
_ID_NAMES = re.compile(
    r"id|fname|no\.?|num|idx|index|key|[ug]?uid|row|unnamed: 0|번호|순번|연번|일련번호|식별자|아이디"
)
_ID_ENDINGS = re.compile(r"[a-z가-힣][ _-](id|no|idx|index|key)$|(번호|아이디|id)$")

ColumnNames = Mapping[str, str | Sequence[str]]
"""Role → column, or several whose texts are joined."""


class CellReader(ABC):
    """Says what a family makes of the cells of a column, so that a value it cannot use is reported with its row.

    A reader is a frozen dataclass: its ``repr`` and its source file are part of the key of the table's cache.
    """

    keeps_spaces: ClassVar[bool] = False
    """Whether it gets a cell as it stands, and not with single spaces and without what cannot be seen."""

    @abstractmethod
    def read(self, text: str) -> str:
        """Return the text that the family gets for a cell that is not empty; an empty one for no value.

        Raises:
            UserError: The cell cannot be used; its ``problem`` and ``expected`` are reported.
        """

    def given(self, text: str) -> str:
        """Return the cell that stands for a text which somebody gives by itself, without a table."""
        return text


@dataclass(frozen=True)
class Role:
    """A column that a family reads."""

    name: str
    """Name of the role in ``data.columns`` and in the rows that the family gets."""
    column: str
    """Name of the table's column when ``data.columns`` does not say."""
    required: bool = True
    """Whether training needs it; prediction needs only roles with ``is_input``."""
    is_input: bool = False
    """Whether the model reads it, which makes it necessary for prediction too."""
    is_id: bool = False
    """Whether its values say which row is which."""
    may_repeat: bool = False
    """Whether values of an id may stand twice, or be missing."""
    may_be_empty: bool = False
    """Whether a required column may have empty cells."""
    option: str | None = None
    """What the user sets to name another column; ``data.columns.<name>`` when not given."""
    is_class: bool = False
    """Whether its values name classes and are no text to learn words from."""
    separator: str | None = None
    """What stands between the classes of one cell, should there be several."""
    reader: CellReader | None = None
    """What is made of its cells; they are values then, and no text to learn words from."""
    of: str | None = None
    """Name of the role whose column this one reads too, by another reader."""

    def given(self, text: str) -> str:
        """Return the cell that stands for a text which somebody gives by itself, without a table."""
        return text if self.reader is None else self.reader.given(text)


@dataclass(frozen=True)
class Field:
    """A role as it is read from one table."""

    role: Role
    columns: tuple[str, ...]
    """Names of the table's columns, which must be there where the role is required; texts of several are joined."""
    cell_needed: bool
    """Whether a row without a value is a bad row."""
    option: str
    """What the user sets to name another column."""
    is_composed: bool
    """Whether its texts are brought to Unicode NFC."""
    is_named: bool = False
    """Whether the user named the column, and should know when it is not there."""
    joint: str = " "
    """What stands between the texts of several columns."""

    @property
    def name(self) -> str:
        """Name of the role."""
        return self.role.name

    @property
    def column(self) -> str:
        """Name of the column, or of all."""
        return " + ".join(self.columns)


def fields_of(
    roles: Sequence[Role], columns: ColumnNames, reading: ReadingConfig, *, for_prediction: bool
) -> list[Field]:
    """Return what is read of a table.

    Raises:
        UserError: A column is named for no role, or serves two, or several serve what is no text.
    """
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
            role,
            _columns_of(role, columns),
            cell_needed=role.required and not role.may_be_empty,
            option=role.option or f"data.columns.{role.of or role.name}",
            is_composed=_is_composed(role, reading),
            is_named=role.name in columns,
            joint=reading.columns_separator,
        )
        for role in roles
        if role.is_input or role.is_id or not for_prediction
    ]
    _refuse_shared_columns(fields, {role.name for role in roles if role.of is not None})
    return fields


def roles_to_predict(
    roles: Sequence[Role], given: ColumnNames, columns: Sequence[str], notify: Callable[[str], None]
) -> list[Role]:
    """Return the roles with the column of each id, by whatever name the table has it.

    An id whose column the table lacks is read from the column that is called like one; its values may repeat then.
    """
    names = {role.name: given.get(role.name, role.column) for role in roles}
    read = {
        column
        for role in roles
        if not role.is_id
        for column in ([names[role.name]] if isinstance(names[role.name], str) else names[role.name])
    }
    found = []
    for role in roles:
        column = names[role.name]
        if role.is_id and isinstance(column, str):
            role = dataclasses.replace(role, column=column)
            like = next((name for name in columns if name not in read and is_like_an_id(name)), None)
            if column not in columns and not role.required and like is not None:
                notify(
                    f"column '{like}' is taken as the {role.name} of the rows (data.columns.{role.name}=…)"
                )
                role = dataclasses.replace(role, column=like, may_repeat=True)
        found.append(role)
    return found


def fields_of_rows(
    roles: Sequence[Role], held: Sequence[Mapping[str, str]], reading: ReadingConfig
) -> list[Field]:
    """Return what is read of rows in memory, whose columns are the roles themselves."""
    return [
        Field(
            role,
            (role.of or role.name,),
            cell_needed=role.required or role.is_id,
            option="data.columns",
            is_composed=_is_composed(role, reading),
        )
        for role in roles
        if role.required or any((role.of or role.name) in row for row in held)
    ]


def present_fields(
    fields: Sequence[Field], columns: Sequence[str], source: str, *, header: bool
) -> list[Field]:
    """Return the fields with their columns as a file spells them; an id column that is there must be filled.

    Raises:
        UserError: A column is missing, or there twice.
    """
    fields = [
        dataclasses.replace(field, columns=tuple(_as_spelled(column, columns) for column in field.columns))
        for field in fields
    ]
    missing = [
        (column, field)
        for field in fields
        for column in field.columns
        if (field.role.required or len(field.columns) > 1) and column not in columns
    ]
    if missing:
        raise _missing_columns(missing, fields, columns, source, header=header)
    for field in fields:
        for column in field.columns:
            if columns.count(column) > 1:
                raise UserError(
                    f"{columns.count(column)} columns are called '{column}'",
                    where=source,
                    expected="distinct column names",
                    hint="rename all but the one that should be read",
                )
    return [
        dataclasses.replace(
            field,
            cell_needed=field.cell_needed
            or (field.role.is_id and not field.role.may_repeat and field.columns[0] in columns),
        )
        for field in fields
    ]


def _as_spelled(column: str, columns: Sequence[str]) -> str:
    """Return a column's name as a file spells it, where only space or what cannot be seen is different."""
    if column in columns:
        return column
    same = [name for name in columns if canonical(name) == canonical(column)]
    return same[0] if len(same) == 1 else column


def settings_of(field: Field) -> list[object]:
    """Return what a field's texts depend on, as JSON values."""
    role = field.role
    plain = [role.name, list(field.columns), role.required, field.cell_needed, role.is_id, role.may_repeat]
    plain += [field.is_named, field.option, field.joint, field.is_composed]
    if role.reader is None:
        return plain
    from dure.data.encoding import code_fingerprint  # Brings datasets, which the command line does not need.

    return [*plain, repr(role.reader), code_fingerprint(role.reader.read)]


def _columns_of(role: Role, columns: ColumnNames) -> tuple[str, ...]:
    given = columns.get(role.of or role.name, role.column)
    names = (given,) if isinstance(given, str) else tuple(given)
    if len(names) > 1 and (role.is_id or role.is_class or role.reader is not None):
        raise UserError(
            f"several columns are named for '{role.name}', and only texts can be joined",
            where=f"data.columns.{role.name}={', '.join(names)}",
            expected="one column",
        )
    if len({*names}) < len(names):
        raise UserError(
            "a column is named twice",
            where=f"data.columns.{role.name}={', '.join(names)}",
            expected="each column once",
        )
    return names


def _is_composed(role: Role, reading: ReadingConfig) -> bool:
    return reading.normalize == "NFC" and not role.is_id and not role.is_class


def _refuse_shared_columns(fields: Sequence[Field], may_share: Collection[str]) -> None:
    """Refuse that two roles read one column, but for an id's: what is predicted would stand in the input."""
    readers: dict[str, Field] = {}
    for field in fields:
        for column in field.columns:
            is_free = field.role.is_id or field.name in may_share
            other = None if is_free else readers.setdefault(column, field)
            if other is not None and other is not field:
                raise UserError(
                    f"column '{column}' is read as '{other.name}' and as '{field.name}'",
                    where=" and ".join(dict.fromkeys((other.option, field.option))),
                    expected="a column for each",
                )


def _missing_columns(
    missing: Sequence[tuple[str, Field]],
    fields: Sequence[Field],
    columns: Sequence[str],
    source: str,
    *,
    header: bool,
) -> UserError:
    """Return the error of all columns that a file lacks, with the settings that name others in their place."""
    free = [name for name in columns if name not in {name for each in fields for name in each.columns}]
    likes: dict[str, str | None] = {}
    for column, _ in missing:
        likes[column] = nearest(column, [name for name in free if name not in likes.values()])
    column, field = missing[0]
    settings = []
    for option, named in {field.option: field.columns for _, field in missing}.items():
        names = [name if name in columns else likes[name] or "COLUMN" for name in named]
        joined = ", ".join(names)
        settings.append(shell_word(f"{option}={joined}" if len(names) == 1 else f"{option}=[{joined}]"))
    hint = f"{' '.join(settings)} names the {'column' if len(missing) == 1 else 'columns'} to read instead"
    around = next((each.parent for each in Path(source).parents if each.name.startswith(f"{column}=")), None)
    if around is not None:
        table = f"pandas.read_parquet({str(around)!r}).to_parquet({f'{around.name}.parquet'!r})"
        hint = f"it is in the names of folders, which are not read; {table} writes one table with it"
    elif not header:
        hint = f"{field.option}=0 reads the first column, 1 the second"
    elif sum(each.role.required for each in fields) > 1 and _is_a_title(columns):
        hint = "remove what stands above the column names, or put commas or tabs between the cells"
    elif not any(likes.values()) and any(map(_is_like_a_cell, columns)):
        numbers = " ".join(
            f"{each.option}={place}"
            for place, each in enumerate(each for each in fields if each.role.required)
        )
        hint = f"the first line looks like a row: data.header=false and columns by number, such as {numbers}"
    lacking = " and no ".join(f"'{name}' (role '{field.name}')" for name, field in missing)
    names = [*dict.fromkeys(name if len(name) <= _LONG_NAME else f"{name[:_LONG_NAME]}…" for name in columns)]
    return UserError(
        f"there is no column {lacking}",
        where=source,
        expected=f"one of its columns: {', '.join(names[:_MOST_NAMES])}{', …' if len(names) > _MOST_NAMES else ''}",
        hint=hint,
    )


def _is_a_title(columns: Sequence[str]) -> bool:
    """Return whether a first line is more like the title of a table: words in one cell, or one cell of several."""
    names = [name for name in columns if name.strip()]
    return len(names) == 1 and (len(columns) > 1 or len(names[0].split()) > 1)


def _is_like_a_cell(name: str) -> bool:
    """Return whether a column name looks more like a cell: a sentence or a number."""
    return len(name) > _LONG_NAME or len(name.split()) >= _MANY_WORDS or bool(_SENTENCE.search(name))


def is_like_an_id(name: str) -> bool:
    """Return whether a column is called as ids are."""
    form = folded(name)
    return bool(_ID_NAMES.fullmatch(form) or _ID_ENDINGS.search(form))
