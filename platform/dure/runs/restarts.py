"""How often the processes of a run died and were started again, in a file that outlives them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dure.files import append_json_line, read_json_lines

_FILE = "restarts.jsonl"


@dataclass(frozen=True)
class Restarts:
    """The restarts of a run or trial, shared by everything that may restart a part of it.

    A trial's own process is restarted by the study, its workers by the trial, and both count against one limit:
    so the count is in a file of the trial's folder, and not with either.
    """

    path: Path
    """Folder of the run or trial."""
    session: str
    """Names the call of dure that runs it; the limit is on the restarts of one session, so that whoever resumes by hand
    has all of them again.
    """

    def add(self, reason: str, *, counts: bool = True) -> None:
        """Note a restart.

        One that was necessary since a node was taken away on notice does not count against the limit.
        """
        append_json_line(
            self.path / _FILE,
            {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "session": self.session,
                "counts": counts,
                "reason": reason,
            },
        )

    @property
    def num_counted(self) -> int:
        """Restarts of this session that count against the limit."""
        return sum(each["counts"] and each["session"] == self.session for each in self.entries())

    @property
    def num(self) -> int:
        """Restarts in all, over all sessions."""
        return len(self.entries())

    @property
    def last_reason(self) -> str:
        """Why the last one was necessary; empty when there was none."""
        lines = self.entries()
        return str(lines[-1]["reason"]) if lines else ""

    def entries(self) -> list[dict[str, Any]]:
        """Return all of them, first one first: when, in which session, why, and whether it counts."""
        return read_json_lines(self.path / _FILE)
