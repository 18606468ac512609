"""The two kinds of failure that reach a user, and the exit code of each."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dure.secrets import redacted, without_passwords

_PLAIN_WORD = re.compile(r"[\w./:@%+,=-]+")


class DureError(Exception):
    """Base of every failure that dure reports in words and without a traceback."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        # Whatever an error quotes, an address of a database or of storage may be in it.
        super().__init__(*(without_passwords(each) if isinstance(each, str) else each for each in args))


class UserError(DureError):
    """Something the user gave is wrong: a file, a key, a row, an option. Exits 2.

    Args:
        problem: What is wrong, with the value that was given.
        where: The place: a file (with row), a dotted key, an option.
        expected: What would have been right.
        hint: What to do now.
    """

    exit_code = 2

    def __init__(
        self, problem: str, *, where: str | None = None, expected: str | None = None, hint: str | None = None
    ) -> None:
        self.problem = without_passwords(problem)
        self.where, self.expected, self.hint = (
            None if each is None else without_passwords(each) for each in (where, expected, hint)
        )
        super().__init__(problem, where, expected, hint)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.problem}" if self.where else self.problem]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    def at(self, where: str, problem: str | None = None) -> UserError:
        """Return this error at another place, its problem in other words where they are given."""
        return UserError(problem or self.problem, where=where, expected=self.expected, hint=self.hint)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword arguments: the error crosses from a worker to the driver."""
        words = {"where": self.where, "expected": self.expected, "hint": self.hint}
        return partial(type(self), self.problem, **words), ()


class RunError(DureError):
    """A run or study failed for a reason that is not the user's input. Exits 1."""


def nearest(word: str, candidates: Sequence[str]) -> str | None:
    """Return the candidate most like ``word``, or None when none is like it.

    Similarity is the normalised Indel ratio of rapidfuzz, of the texts as they stand or of their words in order, which
    finds ``kobart_baseline`` for ``baseline_kobart``; below 60 of 100 nothing is suggested.
    """
    from rapidfuzz import fuzz

    def likeness(candidate: str) -> tuple[float, float]:
        as_it_is = fuzz.ratio(word, candidate)
        in_order = fuzz.token_sort_ratio(word, candidate, processor=lambda name: re.sub(r"[_.\-]", " ", name))
        return max(as_it_is, in_order), as_it_is

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= 60 else None


def said(error: BaseException, most: int | None = None) -> str:
    """Return what an error says, in one line of at most so many characters."""
    return " ".join(str(error).split())[:most]


def named(error: BaseException, most: int | None = None) -> str:
    """Return the class of an error and :func:`said`."""
    return f"{type(error).__name__}: {said(error, most)}"


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line that begins with its class unless it is one of dure's own."""
    text = redacted(said(error)) or type(error).__name__
    return text if isinstance(error, DureError) else f"{type(error).__name__}: {text}"


class FrozenError(UserError, AttributeError):
    """A value of a configuration was assigned to; what is loaded never changes."""


def counted(count: int, noun: str) -> str:
    """Return a number of things: ``1 trial``, ``1,200 steps``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many letters, with an ellipsis where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shell_word(text: object) -> str:
    """Return a text as a command has it: quoted for the shell where that is needed, and never like an option."""
    word = f"./{text}" if str(text).startswith("-") else str(text)
    return word if _PLAIN_WORD.fullmatch(word) else shlex.quote(word)


def shown_path(path: Path | str) -> str:
    """Return a path as the user would type it here: relative when it lies below the working folder."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return os.path.relpath(absolute, here) if absolute.is_relative_to(here) else str(absolute)


def typed_path(path: Path | str) -> str:
    """Return a path as part of a command: as :func:`shown_path`, quoted for the shell where that is needed."""
    return shell_word(shown_path(path))
