"""What a run or study says while it goes on: one stream of numbers and words."""

from dure.events.kinds import (
    SETTLED,
    Notice,
    Notify,
    RunListener,
    RunProgress,
    RunSaved,
    RunStart,
    StudyEnd,
    StudyListener,
    StudyStart,
    TrialState,
    TrialStatus,
    silent,
)
from dure.events.stream import Entry, EventLog, Follower, follow, following, read_events

__all__ = [
    "SETTLED",
    "Entry",
    "EventLog",
    "Follower",
    "Notice",
    "Notify",
    "RunListener",
    "RunProgress",
    "RunSaved",
    "RunStart",
    "StudyEnd",
    "StudyListener",
    "StudyStart",
    "TrialState",
    "TrialStatus",
    "follow",
    "following",
    "read_events",
    "silent",
]
