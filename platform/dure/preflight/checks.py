"""One thing that was looked at, and the list of all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Concatenate, Literal, ParamSpec, TypeVar

from dure.errors import DureError, UserError, named, said

logger = logging.getLogger(__name__)

Area = Literal["environment", "config", "data", "checkpoints"]
State = Literal["ok", "failed", "skipped"]
Value = TypeVar("Value")
Known = ParamSpec("Known")

AREAS: tuple[Area, ...] = ("environment", "config", "data", "checkpoints")


@dataclass(frozen=True)
class Check:
    """What became of one check."""

    area: Area
    """What it belongs to."""
    name: str
    """Its name, distinct within its area."""
    state: State
    """``ok``, ``failed``, or ``skipped`` where it could not be known."""
    found: str
    """What was found."""
    remedy: str = ""
    """What to do; for a check that is ``ok``, what would be better still."""


@dataclass
class Note:
    """What a check writes down while it looks; see :class:`Check`."""

    found: str = ""
    remedy: str = ""


class CannotTellError(Exception):
    """A check cannot be made here, which is no failure.

    ``remedy`` would make it possible.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason, remedy)


class Checklist:
    """Makes checks one by one, so that the failure of one does not hide the others."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        """What became of those made so far."""
        self.missing: Collection[str] = ()
        """Packages that are known not to import; a check that needs one is skipped."""

    def run(
        self,
        area: Area,
        name: str,
        look: Callable[Concatenate[Note, Known], Value],
        /,
        *args: Known.args,
        **known: Known.kwargs,
    ) -> Value | None:
        """Make a check and return what it gives, or None when it failed or was skipped.

        ``look`` writes down what it finds; it fails by raising, and is skipped by raising ``CannotTellError``.
        """
        note = Note()
        value = None
        state: State = "failed"
        try:
            value = look(note, *args, **known)
            state = "ok"
        except CannotTellError as error:
            state, note.found, note.remedy = "skipped", error.reason, error.remedy
        except DureError as error:
            note.found, note.remedy = _words_of(error)
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            if package in self.missing:
                state, note.found = "skipped", f"it needs {package}, which cannot be imported"
            else:
                note.found, note.remedy = f"{type(error).__name__}: {error}", "install what is missing"
        except Exception as error:  # Whatever breaks here is what is looked for; the other checks go on.
            logger.exception("check '%s' of %s", name, area)
            note.found = named(error, 300)
            note.remedy = "--verbose shows where it comes from"
        self.checks.append(Check(area, name, state, note.found, note.remedy))
        return value

    def skip(self, area: Area, reason: str, *names: str) -> None:
        """Say that checks are not made, and why."""
        self.checks += [Check(area, name, "skipped", reason) for name in names]

    def in_order(self) -> list[Check]:
        """Return the checks area by area."""
        return sorted(self.checks, key=lambda check: AREAS.index(check.area))


def _words_of(error: DureError) -> tuple[str, str]:
    """Return what an error says is wrong, and what to do."""
    if not isinstance(error, UserError):
        return said(error), ""
    found = f"{error.where}: {error.problem}" if error.where else error.problem
    if error.expected is None:
        return found, error.hint or "correct it"
    return f"{found}; expected: {error.expected}", error.hint or "correct it to what is expected"
