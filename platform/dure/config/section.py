"""What all typed sections have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

from pydantic import BaseModel, ConfigDict

from dure.config.given import plain_value
from dure.config.sections import in_sections, inner_section, place_in
from dure.config.tree import INSTEAD, flat, plain, with_overrides
from dure.errors import FrozenError


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        """Refuse an assignment, and say what does the same."""
        from dure.config.schema import Experiment

        place = None if type(self) is Experiment else place_in(Experiment, type(self))
        key = f"{place}.{name}" if place else name
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        raise FrozenError(
            "values of a configuration never change once it is loaded",
            where=key,
            expected="another configuration, made of this one",
            hint=f'load it with "{key}={said}", or config = config.with_("{key}={said}")',
        )

    def with_(self, changes: Mapping[str, Any] | str | Sequence[str], source: str | None = None) -> Self:
        """Return the section with other values, checked like those of a file.

        Args:
            changes: Dotted key to value: ``{"training.epochs": 2}``; or as on the command line:
                ``"training.epochs=2"``, or several of these. A mapping for a section changes what it names there, and a
                key of an optional section that is not there makes the section.
            source: The place that errors name, such as the option that the values are of.

        Raises:
            UserError: There is no such key, or the section is impossible with these values; it names the key.
        """
        from dure.config.loading import checked

        if isinstance(changes, Mapping):
            changes = {key: plain_value(value) for key, value in in_sections(type(self), changes)}
        else:
            changes = flat(plain(with_overrides({}, [changes] if isinstance(changes, str) else changes)))
        tree: dict[str, Any] = self.model_dump()  # as JSON an address would lose its password
        places: dict[tuple[str, ...], str] = {}
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = inner_section(tree, sections)
            section[last] = value
            other = INSTEAD.get(last)
            if other in section and value is not None and ".".join((*sections, other)) not in changes:
                del section[other]
            places[(*sections, last)] = source or key
        return checked(type(self), tree, places, source or ", ".join(changes))
