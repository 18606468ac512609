"""Ratios of the data: exact fractions, so that steps of a tenth end at 1, and a stage is named after its ratio."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from dure.config.scalars import NUMBER_PATTERN

RATIO_PATTERN = r"^[0-9.]+([eE][-+]?[0-9]+)?%?$|^[0-9]+/[0-9]+$"
"""A ratio as text: ``0.1``, ``10%`` or ``1/10``."""
MAX_DENOMINATOR = 10**18
"""Finest ratio: one row of far more than any table has, and every decimal writing of 64 bits."""
MAX_RATIOS = 1000
"""Most ratios of a schedule."""

_EXPECTED = "a ratio above 0 and up to 1, such as 0.1, 10% or 1/10"
_MAX_CHARACTERS = 60
_MAX_DECIMALS = 6


def as_ratio(value: Any) -> Fraction:
    """Read a ratio; a number counts by its decimal writing, so that 0.1 is exactly a tenth.

    Raises:
        ValueError: It is no ratio above 0 and up to 1.
    """
    ratio = None
    if isinstance(value, str):
        ratio = _of_text(value.strip())
    elif isinstance(value, float):
        ratio = _of_number(float.__repr__(value))
    elif isinstance(value, (int, Fraction)) and not isinstance(value, bool):
        ratio = Fraction(value)
    if ratio is None or not 0 < ratio <= 1:
        raise ValueError(_EXPECTED)
    if ratio.denominator > MAX_DENOMINATOR:
        raise ValueError(f"{_EXPECTED}, of at most 18 decimals")
    return ratio


def _of_text(text: str) -> Fraction | None:
    if len(text) > _MAX_CHARACTERS:
        return None
    if text.endswith("%"):
        percent = _of_number(text[:-1].rstrip())
        return None if percent is None else percent / 100
    parts = re.fullmatch(r"([0-9]+)\s*/\s*([0-9]+)", text)
    if parts is not None:
        return Fraction(int(parts[1]), int(parts[2])) if int(parts[2]) else None
    return _of_number(text)


def _of_number(text: str) -> Fraction | None:
    # The float comes first: it is never slow, while the exact power of ten in '1e-99999999' would be.
    if not re.fullmatch(NUMBER_PATTERN, text) or not 0 < float(text) < 1e3:
        return None
    return Fraction(text)


def as_number(ratio: Fraction) -> int | float | str:
    """Write a ratio so that :func:`as_ratio` reads the same one: as a number, or as ``1/3`` where none is exact."""
    if ratio.denominator == 1:
        return int(ratio)
    number = float(ratio)
    return number if Fraction(repr(number)) == ratio else f"{ratio.numerator}/{ratio.denominator}"


Ratio = Annotated[
    Fraction,
    PlainValidator(as_ratio),
    PlainSerializer(as_number),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                {"type": "string", "pattern": RATIO_PATTERN},
            ]
        }
    ),
]
"""An exact ratio above 0 and up to 1, written as a number, as percent or as a fraction."""


def schedule(
    start: Fraction | float | str, step: Fraction | float | str, end: Fraction | float | str = 1
) -> tuple[Fraction, ...]:
    """Return ``start``, ``start + step`` … below ``end``, and ``end`` itself as the last.

    Raises:
        ValueError: One of them is no ratio, ``start`` is above ``end``, or there would be too many stages.
    """
    first, width, last = as_ratio(start), as_ratio(step), as_ratio(end)
    if first > last:
        raise ValueError(f"the start {as_number(first)} is above the end {as_number(last)}")
    steps = -((first - last) // width)
    if steps >= MAX_RATIOS:
        raise ValueError(f"steps of {as_number(width)} make {steps + 1:,} ratios, more than {MAX_RATIOS:,}")
    return (*(first + number * width for number in range(steps)), last)


def percent_label(ratio: Fraction) -> str:
    """Return a ratio in percent as part of a file's name: ``10``, ``2.5``, and ``1of3`` where decimals do not end.

    Different ratios have different labels.
    """
    percent = ratio * 100
    scaled = percent * 10**_MAX_DECIMALS
    if scaled.denominator != 1:
        return f"{ratio.numerator}of{ratio.denominator}"
    whole, decimals = divmod(int(scaled), 10**_MAX_DECIMALS)
    return f"{whole}.{decimals:0{_MAX_DECIMALS}d}".rstrip("0").rstrip(".")
