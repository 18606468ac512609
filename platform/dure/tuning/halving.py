"""Who goes on: successive halving over the rungs of a schedule, without anything of Ray in it.

Source: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".
There a candidate that goes on starts anew with a larger budget; here it goes on from where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

CandidateState = Literal["running", "waiting", "done", "out"]
Direction = Literal["min", "max"]


@dataclass
class Candidate:
    """One that takes part.

    Attributes:
        place: Its number in the order of joining; decides ties.
        rung: The rung that it runs, or that it waits at.
        state: ``running`` its rung, ``waiting`` there for the others, ``done`` with all rungs, or ``out``.
        scores: What it reached on every rung that it has behind it.
        reason: Why it is out, or done before the last rung.
    """

    place: int
    rung: int = 0
    state: CandidateState = "running"
    scores: list[float] = field(default_factory=list)
    reason: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it will not run again."""
        return self.state in ("done", "out")


class Race:
    """Candidates that climb rungs together; on each rung only the best part of them goes on.

    A rung is decided when every candidate that reached it has a score there or is out. Of the ``n`` that
    reached it, ``n // reduction`` go on, at least one; those without a score are never among them. Ties go to
    the candidate that joined first, so that the outcome does not depend on who reports first. One that joins
    after a rung was decided goes on if it is among the best part of all that ever reached that rung.

    Args:
        labels: Names of the rungs, for reasons.
        num_candidates: How many will join; no rung is decided before they have.
        reduction: η; 1 keeps all.
        direction: Whether the smallest or the largest score is the best.
        min_gain: When the best score of a rung improves on that of the rung before by less, all are done.

    Raises:
        ValueError: There are no rungs or no candidates, or ``reduction`` is below 1.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        num_candidates: int = 1,
        reduction: int = 3,
        direction: Direction = "max",
        min_gain: float | None = None,
    ) -> None:
        if not labels or num_candidates < 1 or reduction < 1:
            raise ValueError(
                f"a race needs rungs, candidates and a reduction of 1 or more, not {len(labels)}, "
                f"{num_candidates} and {reduction}"
            )
        self.labels = list(labels)
        self.num_candidates = num_candidates
        self.reduction = reduction
        self.direction: Direction = direction
        self.min_gain = min_gain
        self.candidates: dict[str, Candidate] = {}
        self.decided = 0
        """Rungs on which it is decided who goes on."""

    @property
    def is_over(self) -> bool:
        """Whether all have joined and none will run again."""
        everyone = self.candidates.values()
        return len(everyone) >= self.num_candidates and all(each.is_over for each in everyone)

    def join(self, name: str) -> Candidate:
        """Let a candidate take part; one that does already stays as it is."""
        return self.candidates.setdefault(name, Candidate(place=len(self.candidates)))

    def report(self, name: str, rung: int, score: float | None, *, baseline: float | None = None) -> None:
        """Take what a candidate reached on a rung; anything but its own rung is late and changes nothing.

        Args:
            name: The candidate.
            rung: Number of the rung, from 0.
            score: What it reached; None or NaN puts it out.
            baseline: What it must be better than on the first rung.
        """
        candidate = self.candidates[name]
        if candidate.state != "running" or rung != candidate.rung:
            return
        if score is None or math.isnan(score):
            self._out(candidate, f"no score at {self.labels[rung]}")
        else:
            candidate.scores.append(float(score))
            if rung == 0 and baseline is not None and self._key(score) >= self._key(baseline):
                self._out(
                    candidate, f"no better than the trivial baseline {baseline:.4g} at {self.labels[0]}"
                )
            elif rung == len(self.labels) - 1:
                candidate.state = "done"
            else:
                candidate.state = "waiting"
        self._decide()

    def leave(self, name: str, reason: str) -> None:
        """Take a candidate out that will not report again; one that is over stays as it is."""
        candidate = self.candidates[name]
        if not candidate.is_over:
            self._out(candidate, reason)
            self._decide()

    def ranking(self) -> list[str]:
        """Return all that have a score, best first: who got further, and there who scored better."""
        scored = {name: each for name, each in self.candidates.items() if each.scores}
        return sorted(scored, key=lambda name: (-len(scored[name].scores), *self._order(scored[name], -1)))

    def as_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return {
            "candidates": {name: asdict(each) for name, each in self.candidates.items()},
            "decided": self.decided,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state from :meth:`as_dict`."""
        self.candidates = {name: Candidate(**values) for name, values in state["candidates"].items()}
        self.decided = int(state["decided"])

    def _out(self, candidate: Candidate, reason: str) -> None:
        candidate.state, candidate.reason = "out", reason

    def _key(self, score: float) -> float:
        return score if self.direction == "min" else -score

    def _order(self, candidate: Candidate, rung: int) -> tuple[float, int]:
        return self._key(candidate.scores[rung]), candidate.place

    def _decide(self) -> None:
        """Decide every rung that can be, and who of the late ones goes on."""
        for rung in range(len(self.labels) - 1):
            waiting = [
                each for each in self.candidates.values() if (each.state, each.rung) == ("waiting", rung)
            ]
            is_late = rung < self.decided
            if not is_late and (rung > self.decided or not self._is_complete(rung)):
                return
            if not is_late:
                self.decided = rung + 1
                if waiting and self._pays_no_more(rung):
                    for each in waiting:
                        each.state, each.reason = "done", f"more data gains less than {self.min_gain:g}"
                    continue
            best = self._best(rung)
            for each in waiting:
                if any(each is other for other in best):
                    each.rung, each.state = rung + 1, "running"
                else:
                    self._out(each, f"beaten at {self.labels[rung]}")

    def _is_complete(self, rung: int) -> bool:
        if len(self.candidates) < self.num_candidates:
            return False
        return not any(each.state == "running" and each.rung <= rung for each in self.candidates.values())

    def _best(self, rung: int) -> list[Candidate]:
        """Return those that may go on from a rung, of all that ever reached it."""
        reached = [each for each in self.candidates.values() if each.rung >= rung]
        scored = sorted(
            (each for each in reached if len(each.scores) > rung), key=lambda each: self._order(each, rung)
        )
        return scored[: max(1, len(reached) // self.reduction)]

    def _pays_no_more(self, rung: int) -> bool:
        if self.min_gain is None or rung == 0:
            return False

        def best(at: int) -> float:
            return min(
                self._key(each.scores[at]) for each in self.candidates.values() if len(each.scores) > at
            )

        return best(rung - 1) - best(rung) < self.min_gain
