"""What all typed sections have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dure.config.problems import user_error
from dure.config.sections import inner_section
from dure.config.tree import INSTEAD


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    def with_(self, changes: Mapping[str, Any], source: str | None = None) -> Self:
        """Return the section with other values, checked like those of a file.

        Args:
            changes: Dotted key to value: ``{"training.epochs": 2}``. A key of an optional section that is not there
                makes the section.
            source: The place that errors name, such as the option that the values are of.

        Raises:
            UserError: There is no such key, or the section is impossible with these values; it names the key.
        """
        tree: dict[str, Any] = self.model_dump(mode="json")
        places: dict[tuple[str, ...], str] = {}
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = inner_section(tree, sections)
            section[last] = value
            other = INSTEAD.get(last)
            if other in section and value is not None and ".".join((*sections, other)) not in changes:
                del section[other]
            places[(*sections, last)] = source or key
        try:
            return type(self).model_validate(tree)
        except ValidationError as error:
            raise user_error(error, type(self), tree, places, source or ", ".join(changes)) from None
