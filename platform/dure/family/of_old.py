"""Which family a configuration of an older system is of."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from dure.config.families import own_families
from dure.errors import UserError
from dure.family.loading import family_class


def family_of_old(predicts: Literal["logits", "text"], text: str) -> str:
    """Return which of dure's own families a file of an older system is of.

    ``text`` is everything that the file says, and ``predicts`` is as ``Family.predicts`` has it.
    """
    declared = {}
    for name in own_families():
        with suppress(UserError):  # a package of several, which are named by their own modules
            declared[name] = family_class(name)
    candidates = {
        name: each.converts
        # A family that is built upon another says more than that one, so it is asked first.
        for name, each in sorted(declared.items(), key=lambda item: -len(item[1].__mro__))
        if each.predicts == predicts and each.converts is not None
    }
    plain = next(name for name, words in candidates.items() if not words)
    said = text.casefold()
    return next(
        (name for name, words in candidates.items() if words and any(word in said for word in words)), plain
    )
