"""Which column of a table to predict says which row is which."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from dure.data.canonical import folded
from dure.data.fields import ColumnNames, Role

_NAMES = re.compile(
    r"id|fname|no\.?|num|idx|index|key|[ug]?uid|row|unnamed: 0|번호|순번|연번|일련번호|식별자|아이디"
)
_ENDINGS = re.compile(r"[a-z가-힣][ _-](id|no|idx|index|key)$|(번호|아이디|id)$")


def roles_to_predict(
    roles: Sequence[Role], given: ColumnNames, columns: Sequence[str], tell: Callable[[str], None]
) -> list[Role]:
    """Return the roles with the column of each id, by whatever name the table has it.

    An id whose column the table lacks is read from the column that is called like one; its values may repeat then.

    Args:
        roles: What the family reads.
        given: Role → column, as the experiment says.
        columns: The table's columns.
        tell: Gets a line about a column that was recognised.
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
        if role.is_id and isinstance(column, str) and column not in columns and not role.required:
            like = next((name for name in columns if name not in read and _is_like_an_id(name)), None)
            if like is not None:
                tell(f"column '{like}' is taken as the {role.name} of the rows (data.columns.{role.name}=…)")
                found.append(replace(role, column=like, may_repeat=True))
                continue
        found.append(replace(role, column=column) if role.is_id and isinstance(column, str) else role)
    return found


def _is_like_an_id(name: str) -> bool:
    form = folded(name)
    return bool(_NAMES.fullmatch(form) or _ENDINGS.search(form))
