"""Numbers as people write them in YAML and on a command line."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def number_from_text(value: Any) -> Any:
    """Turn text such as ``1e-5`` into a float; leave everything else for validation.

    YAML 1.1 wants a dot and a sign, as in ``1.0e-5``, and reads ``1e-5`` as text.

    Raises:
        ValueError: The value is a truth value, which Python would count as 0 or 1.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value} is a truth value, not a number")
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return value


def whole_number(value: Any) -> Any:
    """Turn text such as ``1e3`` into a number and refuse truth values; pydantic checks that it is whole."""
    return number_from_text(value)
