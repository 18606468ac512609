"""From the body of a request to rows that a model's family reads, checked as those of a table to predict are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dure.data.cells import Record, RowProblem, kind_of, text_of
from dure.data.checking import Checks
from dure.data.fields import fields_of_rows
from dure.data.json_files import DoubledKeyError, distinct_keys
from dure.errors import UserError, nearest, said
from dure.family import Family
from dure.files import parse_json
from dure.serving.refusals import RefusedError

TEXTS = "texts"
"""The key of a request."""
MOST_TEXTS = 256
"""Texts of one request; whoever has more sends several."""
_EXAMPLE = '{"texts": ["…"]}'


class Inputs:
    """What the requests of a family hold."""

    def __init__(self, family: Family) -> None:
        self.roles = [role for role in family.roles if role.is_input]
        self.needed = [role.name for role in self.roles if role.required] or [self.roles[0].name]
        self._reading = family.experiment.data

    def rows(self, body: bytes) -> list[dict[str, str]]:
        """Return the rows of a request, role → text.

        Raises:
            RefusedError: The body is no JSON, or doubles a key (400), holds too many texts (413), or something else than such texts (422).
        """
        texts = _texts_in(body)
        if len(texts) > MOST_TEXTS:
            raise RefusedError(
                413,
                f"there are {len(texts):,} texts",
                where=TEXTS,
                expected=f"at most {MOST_TEXTS} in a request",
                hint="send them in several requests; for whole tables there is dure predict RUN TABLE -o FILE",
            )
        held = [self._cells(place, text) for place, text in enumerate(texts)]
        fields = fields_of_rows(self.roles, held, self._reading)
        checks = Checks(fields, (TEXTS,), "error")
        rows = []
        for place, cells in enumerate(held):
            try:
                checked = checks.texts(Record(place + 1, None, cells))
            except UserError as error:
                expected = error.expected or "a text with something to read"
                raise RefusedError(422, error.problem, where=f"{TEXTS}[{place}]", expected=expected) from None
            if checked is not None:
                rows.append(checked[1])
        kept, names = checks.kept(), [each.name for each in fields]
        return [{name: row[names.index(name)] for name in kept} for row in rows]

    def _cells(self, place: int, text: Any) -> dict[str, str]:
        """Return one of the texts as the cells of a row."""
        where = f"{TEXTS}[{place}]"
        known = [role.name for role in self.roles]
        nested = {role.name for role in self.roles if role.reader is not None}
        if not isinstance(text, Mapping):
            if len(self.needed) > 1:
                raise RefusedError(
                    422,
                    f"a row of this model has {len(self.needed)} texts: {', '.join(self.needed)}",
                    where=where,
                    expected=f"an object with the keys {', '.join(known)}",
                )
            role = next(role for role in self.roles if role.name == self.needed[0])
            text = {role.name: role.given(text) if isinstance(text, str) else text}
        if strange := sorted(text.keys() - set(known)):
            like = nearest(strange[0], known)
            raise RefusedError(
                422,
                f"there is no column '{strange[0]}'",
                where=where,
                expected=f"one of {', '.join(known)}",
                hint=f"'{like}'" if like else None,
            )
        return {name: _cell(value, name, where, is_nested=name in nested) for name, value in text.items()}


def _texts_in(body: bytes) -> Sequence[Any]:
    """Return the texts of a request."""
    try:
        value = parse_json(body, distinct_keys)
    except DoubledKeyError as error:
        raise RefusedError(
            400, f"the key '{error}' stands twice", where="body", expected=f"each key once, {_EXAMPLE}"
        ) from None
    except UnicodeDecodeError:
        raise RefusedError(
            400, "the body is not UTF-8", where="body", expected=f"JSON in UTF-8, such as {_EXAMPLE}"
        ) from None
    except ValueError as error:
        raise RefusedError(
            400, f"the body is no JSON ({said(error)})", where="body", expected=f"such as {_EXAMPLE}"
        ) from None
    if not isinstance(value, Mapping):
        raise RefusedError(
            422, f"the body is {_kind(value)}", where="body", expected=f"an object, {_EXAMPLE}"
        )
    if strange := [name for name in value if name != TEXTS]:
        raise RefusedError(
            422, f"there is no key '{strange[0]}'", where="body", expected=f"'{TEXTS}' alone, {_EXAMPLE}"
        )
    texts = value.get(TEXTS)
    if not isinstance(texts, list) or not texts:
        problem = "it is missing" if TEXTS not in value else f"it is {_kind(texts)}"
        raise RefusedError(422, problem, where=TEXTS, expected=f"a list with a text at least, {_EXAMPLE}")
    return texts


def _cell(value: Any, name: str, where: str, *, is_nested: bool) -> str:
    """Return a value as the text of a cell."""
    if not is_nested and not isinstance(value, str):
        raise RefusedError(422, f"'{name}' is {_kind(value)}", where=where, expected="a text in quotes")
    cell = text_of(value, name, nested=is_nested)
    if isinstance(cell, RowProblem):
        raise RefusedError(422, cell.text, where=where, expected=cell.expected or "a text")
    return cell or ""


def _kind(value: Any) -> str:
    """Return in words what a value of JSON is."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a text" if value else "an empty text"
        case []:
            return "an empty list"
    return kind_of(value)
