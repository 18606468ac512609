"""What a request is answered when it gets no predictions: a status, and dure's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.errors import UserError


class RefusedError(Exception):
    """A request that gets no predictions."""

    def __init__(
        self,
        status: int,
        problem: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.headers = dict(headers or {})
        words = {"problem": problem, "where": where, "expected": expected, "hint": hint}
        self.body: dict[str, Any] = {"error": {name: value for name, value in words.items() if value}}

    @classmethod
    def of(cls, error: UserError) -> RefusedError:
        """Return the refusal of a request whose texts the model's family does not take."""
        return cls(422, error.problem, where=error.where, expected=error.expected, hint=error.hint)


def busy(problem: str) -> RefusedError:
    """Return the refusal of a request that may succeed a moment later."""
    return RefusedError(503, problem, hint="ask again after a second", headers={"Retry-After": "1"})
