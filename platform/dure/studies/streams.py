"""The streams of a study and of its trials, followed in the driver wherever the trials run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from dure.events import Entry, EventLog, Follower
from dure.runs.folder import EVENTS_FILE
from dure.runtime.relay import Relay

STUDY = "study"
"""Origin of what the study itself says."""
DRIVER = "driver"
"""Origin of what the driver says of one trial."""


class StudyStreams:
    """Hands on what is new in the streams of a study and of the trials that run.

    The folder of a trial can be that of the study.
    """

    def __init__(self, study: Path, trials: Mapping[str, Path]) -> None:
        self._log = EventLog(study / EVENTS_FILE, STUDY)
        self._logs = {name: EventLog(path / EVENTS_FILE, DRIVER) for name, path in trials.items()}
        self._study = Follower(study / EVENTS_FILE)
        self._trials = {name: Follower(path / EVENTS_FILE) for name, path in trials.items() if path != study}
        self._in_study = next((name for name, path in trials.items() if path == study), "")
        self._open: set[str] = set()
        self.relay: Relay | None = None
        """Brings lines from other nodes."""
        self.lock = threading.RLock()
        """While it is held nothing is handed on."""

    def log(self, trial: str | None = None) -> EventLog:
        """Return what adds to the stream of a trial, or to that of the study."""
        return self._log if trial is None else self._logs[trial]

    def open(self, trial: str) -> None:
        """Follow a trial from now on: it runs."""
        with self.lock:
            self._open.add(trial)

    def close(self, trial: str) -> None:
        """Follow a trial no longer: it has ended, and what it said was handed on."""
        with self.lock:
            self._open.discard(trial)

    def look(self, heard: Callable[[str | None, Entry], None]) -> None:
        """Hand on everything that is new, with the name of its trial; None stands for the study itself."""
        with self.lock:
            relayed: dict[str, list[bytes]] = {}
            for name, line in () if self.relay is None else self.relay.received():
                relayed.setdefault(name, []).append(line)
            for entry in self._study.new(relayed.get(self._in_study, ())):
                heard(None if entry.origin == STUDY else self._in_study, entry)
            for name in sorted((self._open | relayed.keys()) & self._trials.keys()):
                for entry in self._trials[name].new(relayed.get(name, ())):
                    heard(name, entry)
