"""Who goes on: successive halving over the rungs of a schedule, without anything of Ray in it.

Source: Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification and Hyperparameter Optimization".
There a candidate that goes on starts again with a larger budget; here it goes on from where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dure.metrics.metric import Metric

CandidateState = Literal["running", "waiting", "done", "out"]


@dataclass
class Candidate:
    """One that takes part."""

    place: int
    """Its number in the order of joining; decides ties."""
    rung: int = 0
    """The rung that it runs, or that it waits at."""
    state: CandidateState = "running"
    """``running`` its rung, ``waiting`` there for the others, ``done`` with all rungs, or ``out``."""
    scores: list[float] = field(default_factory=list)
    """What it reached on every rung that it has behind it."""
    reason: str | None = None
    """Why it is out, or done before the last rung."""
    has_left: bool = False
    """Whether it is out for another reason than that others were better."""

    @property
    def is_over(self) -> bool:
        """Whether it will not run again."""
        return self.state in ("done", "out")


class Race:
    """Candidates that climb rungs together; on each rung only the best part of them goes on.

    A rung is decided when every candidate that reached it has a score there or is out. Of the ``n`` that
    reached it, ``n // reduction`` go on, at least one; those without a score are never among them, and those
    that left in the meantime take nobody's place. Ties go to the candidate that joined first, so that the
    outcome does not depend on who reports first. One that comes to a rung after it was decided goes on if it is
    among the best part of all that ever reached that rung, unless all were done there.

    Args:
        labels: Names of the rungs, for reasons.
        num_candidates: How many will join; no rung is decided before they have.
        reduction: η; 1 keeps all.
        metric: What the scores are.
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
        metric: Metric,
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
        self.metric = metric
        self.min_gain = min_gain
        self.candidates: dict[str, Candidate] = {}
        self.decided = 0
        """Rungs on which it is decided who goes on."""
        self.ended_at: int | None = None
        """The rung on which all were done, because more gained too little."""

    @property
    def is_over(self) -> bool:
        """Whether all have joined and none will run again."""
        everyone = self.candidates.values()
        return len(everyone) >= self.num_candidates and all(each.is_over for each in everyone)

    def join(self, name: str) -> Candidate:
        """Let a candidate take part; one that does already stays as it is."""
        return self.candidates.setdefault(name, Candidate(place=len(self.candidates)))

    def close(self) -> None:
        """Decide without those that are still missing: nobody else will join."""
        self.num_candidates = max(1, len(self.candidates))
        self._decide()

    def report(
        self,
        name: str,
        rung: int,
        score: float | None,
        *,
        baseline: float | None = None,
        leaves: str | None = None,
    ) -> None:
        """Take what a candidate reached on a rung; anything but its own rung is late and changes nothing.

        A score that is None or not finite puts it out, and so does one on the first rung that is not better than
        ``baseline``. With ``leaves``, the reason why it cannot go on, the score counts for its rank all the same.
        """
        candidate = self.candidates[name]
        if candidate.state != "running" or rung != candidate.rung:
            return
        if score is None or not math.isfinite(score):
            self._leave(candidate, f"no score at {self.labels[rung]}")
        else:
            candidate.scores.append(float(score))
            if rung == 0 and baseline is not None and not self.metric.better(score, baseline):
                self._leave(
                    candidate, f"no better than the trivial baseline {baseline:.4g} at {self.labels[0]}"
                )
            elif rung == len(self.labels) - 1:
                candidate.state = "done"
            elif leaves is not None:
                self._leave(candidate, leaves)
            else:
                candidate.state = "waiting"
        self._decide()

    def leave(self, name: str, reason: str) -> None:
        """Take a candidate out that will not report again; one that is over stays as it is."""
        candidate = self.candidates[name]
        if not candidate.is_over:
            self._leave(candidate, reason)
            self._decide()

    def take_back(self, name: str, rung: int) -> None:
        """Let a candidate run again from a rung that it has behind it, because what it made there is lost.

        What was decided stays decided; like one that comes late it is held against it.
        """
        candidate = self.candidates[name]
        candidate.scores = candidate.scores[:rung]
        candidate.rung = rung
        candidate.state, candidate.reason, candidate.has_left = "running", None, False

    def ranking(self) -> list[str]:
        """Return all that have a score, best first: who got further, and there who scored better."""
        scored = {name: each for name, each in self.candidates.items() if each.scores}
        return sorted(scored, key=lambda name: (-len(scored[name].scores), *self._order(scored[name], -1)))

    def as_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return {
            "candidates": {name: asdict(each) for name, each in self.candidates.items()},
            "decided": self.decided,
            "ended_at": self.ended_at,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state from :meth:`as_dict`."""
        self.candidates = {name: Candidate(**values) for name, values in state["candidates"].items()}
        self.decided = int(state["decided"])
        self.ended_at = state["ended_at"]

    def _leave(self, candidate: Candidate, reason: str) -> None:
        candidate.state, candidate.reason, candidate.has_left = "out", reason, True

    def _order(self, candidate: Candidate, rung: int) -> tuple[float, int]:
        return self.metric.cost(candidate.scores[rung]), candidate.place

    def _decide(self) -> None:
        """Decide every rung that can be, and who of the late ones goes on."""
        for rung in range(len(self.labels) - 1):
            waiting = [
                each for each in self.candidates.values() if (each.state, each.rung) == ("waiting", rung)
            ]
            if rung == self.decided:
                if not self._is_complete(rung):
                    return
                self.decided = rung + 1
                if waiting and self._pays_no_more(rung):
                    self.ended_at = rung
            best = self._best(rung)
            for each in waiting:
                if rung == self.ended_at:
                    each.state, each.reason = "done", f"more data gains less than {self.min_gain:g}"
                elif any(each is other for other in best):
                    each.rung, each.state = rung + 1, "running"
                else:
                    each.state, each.reason = "out", f"beaten at {self.labels[rung]}"

    def _is_complete(self, rung: int) -> bool:
        if len(self.candidates) < self.num_candidates:
            return False
        return not any(each.state == "running" and each.rung <= rung for each in self.candidates.values())

    def _best(self, rung: int) -> list[Candidate]:
        """Return those that may go on from a rung, of all that ever reached it."""
        reached = [each for each in self.candidates.values() if each.rung >= rung]
        ranked = sorted(
            # One that left here leaves its place to the next; one that left further up had taken it.
            (
                each
                for each in reached
                if len(each.scores) > rung and not (each.has_left and each.rung == rung)
            ),
            key=lambda each: self._order(each, rung),
        )
        return ranked[: max(1, len(reached) // self.reduction)]

    def _pays_no_more(self, rung: int) -> bool:
        if self.min_gain is None or rung == 0:
            return False

        def best(at: int) -> float:
            scores = (each.scores[at] for each in self.candidates.values() if len(each.scores) > at)
            return min(scores, key=self.metric.cost)

        return self.metric.gain(best(rung), best(rung - 1)) < self.min_gain
