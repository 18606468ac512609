"""What workers that train together must agree on: each looks at the disk at another moment, so one looks for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, gather_object

_Value = TypeVar("_Value")


def by_main(look: Callable[[], _Value]) -> _Value:
    """Let the main worker look, and return what it found, or raise what it raised, on every worker; collective."""
    found: list[tuple[_Value | None, Exception | None]] = [(None, None)]
    if PartialState().is_main_process:
        try:
            found = [(look(), None)]
        except Exception as failure:  # the others wait for an answer, and must not wait forever
            found = [(None, failure)]
    broadcast_object_list(found, from_process=0)
    value, error = found[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # None only where the main worker found None


def first_said(word: str | None) -> str | None:
    """Return what the first worker said that said anything; collective."""
    return next((each for each in gather_object([word]) if each is not None), None)
