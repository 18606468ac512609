"""A command of dure that runs in a process of its own, watched from outside and disturbed on purpose."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from dure.errors import DureError
from dure.files import read_json_lines
from dure.runs.checkpoints import checkpoints
from dure.runs.folder import folder_at
from tests.faults.results import runs_in
from tests.faults.studies import Study

REPOSITORY = Path(__file__).parents[2]
SECONDS = 420.0
"""Longest that any one thing may take: Ray keeps the room of a Train controller that died for three minutes."""
_SECONDS_OF_AFTERMATH = 0.5
"""After a fault, what was under way may still be written; no recovery is as fast."""


class FaultError(Exception):
    """The scene did not go as the fault needs it, or ended other than it must."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    path: Path
    """Its folder."""
    step: int
    """Last optimizer step in its records."""
    checkpoint: int
    """Newest whole checkpoint."""
    is_settled: bool
    """Whether it has a result."""


@dataclass
class Recovery:
    """What a fault cost."""

    seconds: float | None = None
    """From the fault, or from the start of the command that goes on, to the first new record."""
    steps_again: int = 0
    """Optimizer steps that were done a second time."""


@dataclass
class Scene:
    """A study that is disturbed."""

    study: Study
    """What is run."""
    folder: Path
    """Where the study's output and the command's logs lie."""
    environment: dict[str, str] = field(default_factory=dict)
    """Further environment variables."""
    recovery: Recovery = field(default_factory=Recovery)
    """What the fault has cost until now."""
    process: subprocess.Popen[bytes] | None = None
    _sessions: int = 0
    _below: dict[int, psutil.Process] = field(default_factory=dict)
    _before: dict[Path, list[str]] | None = None
    _since: float = 0.0

    @property
    def output(self) -> Path:
        """Folder of the study."""
        return self.folder / "study"

    @property
    def log(self) -> Path:
        """What the last session printed."""
        return self.folder / f"session-{self._sessions}.log"

    def start(self, *more: str, resume: bool = False) -> None:
        """Start a session of the command."""
        self._sessions += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._words(resume, *more),
                cwd=self.folder,
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # What a shell starts in the background ignores Ctrl-C, and so would whatever that starts.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )
        if self._before is not None:
            self._since, self._before = time.monotonic(), self._unfinished()
            self.recovery = Recovery()

    def another(self, *, resume: bool) -> tuple[int, str]:
        """Run the command a second time beside the first; return what it exits with and prints."""
        done = subprocess.run(
            self._words(resume),
            cwd=self.folder,
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def _words(self, resume: bool, *more: str) -> list[str]:
        return [sys.executable, "-m", "dure", *self.study.words(self.output, resume=resume), *more]

    def _variables(self) -> dict[str, str]:
        roots = os.pathsep.join([str(REPOSITORY / "platform"), str(REPOSITORY)])
        return {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1", **self.environment}

    def resume(self, *more: str) -> None:
        """Start a session that goes on with what the last one left, and see it to its end in order."""
        self.start(*more, resume=True)
        self.finish()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds while the command runs.

        Raises:
            FaultError: It ends before, or takes too long.
        """
        until = time.monotonic() + SECONDS
        while not condition():
            if self._running().poll() is not None:
                raise FaultError(f"the command ended before {what}\n{self.tail()}")
            if time.monotonic() > until:
                raise FaultError(f"{what} did not come within {SECONDS:.0f} s\n{self.tail()}")
            time.sleep(0.01)

    def holds(self, pattern: str) -> bool:
        """Return whether something like that lies somewhere in the output, where others may vanish meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            return any(self.output.rglob(pattern))
        return False

    def underway(self, *, settled: int = 0, within: str = "") -> Progress:
        """Wait until a run is past a checkpoint of it, with so many runs of the study settled, and return how far.

        Args:
            settled: Runs that must have ended before.
            within: What the path of the run must hold.
        """
        found: list[Progress] = []

        def is_past() -> bool:
            runs = list(self.runs())
            if sum(run.is_settled for run in runs) < settled:
                return False
            found[:] = [
                run
                for run in runs
                if not run.is_settled and 0 < run.checkpoint < run.step and within in str(run.path)
            ]
            return bool(found)

        self.wait(is_past, "a run was past a checkpoint")
        return found[0]

    def runs(self) -> Iterator[Progress]:
        """Return how far all runs of the study are."""
        for run in runs_in(self.output):
            try:
                records = read_json_lines(run / "metrics.jsonl")
                whole = checkpoints(folder_at(run).checkpoints)
            except (DureError, OSError):
                continue  # Being rewritten just now.
            steps = [record["step"] for record in records if record["kind"] == "train"]
            yield Progress(
                run,
                max(steps, default=0),
                max(whole, default=0),
                _is_settled(run),
            )

    def fault(self) -> None:
        """Say that the fault has come: what is recorded from here on is recovery."""
        self._since = time.monotonic()
        time.sleep(_SECONDS_OF_AFTERMATH)
        self._before = self._unfinished()

    def _unfinished(self) -> dict[Path, list[str]]:
        """Return the records of all runs that have not ended."""
        return {
            run / "metrics.jsonl": (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            for run in runs_in(self.output)
            if not _is_settled(run)
        }

    def processes(self, title: str) -> list[psutil.Process]:
        """Return the processes below the command whose title matches a pattern."""
        return [process for process in self.see_processes() if re.search(title, _title(process))]

    def see_processes(self) -> list[psutil.Process]:
        """Return the processes below the command, and remember them: none may outlive it."""
        running = self._running()
        if running.poll() is None:
            below = psutil.Process(running.pid).children(recursive=True)
            self._below |= {process.pid: process for process in below}
            return below
        return []

    def kill(self, title: str | None = None, number: int = 0) -> None:
        """Kill (SIGKILL) a process below the command by its title, or the command itself.

        Raises:
            FaultError: There is no such process.
        """
        self.see_processes()
        if title is None:
            self._running().kill()
            self._running().wait()
            self.fault()
            return
        self._find(title, number).kill()
        self.fault()

    def _find(self, title: str, number: int = 0) -> psutil.Process:
        found: list[psutil.Process] = []

        def is_there() -> bool:
            found[:] = self.processes(title)  # a process of Ray gets its title when it begins to work
            return len(found) > number

        self.wait(is_there, f"a process {title!r} was there")
        return found[number]

    def signal(self, number: int, title: str | None = None) -> None:
        """Send the command, or a process below it by its title, a signal."""
        self.see_processes()
        if title is None:
            self._running().send_signal(number)
        else:
            self._find(title).send_signal(number)

    def finish(self, code: int | None = 0) -> int:
        """Wait for the end of the command, which must exit with ``code`` and leave no process behind.

        Returns:
            What it exited with; any when ``code`` is None.

        Raises:
            FaultError: It exits with another code, hangs, or leaves something running.
        """
        until = time.monotonic() + SECONDS
        while self._running().poll() is None:
            if time.monotonic() > until:
                self._running().kill()
                raise FaultError(f"it does not end\n{self.tail()}")
            self.see_processes()
            self._look_for_recovery()
            time.sleep(0.02)
        self._look_for_recovery()
        _, alive = psutil.wait_procs(list(self._below.values()), timeout=30)
        if alive:
            left = [_title(process) for process in alive]
            for process in alive:
                process.kill()
            raise FaultError(f"left running: {left}")
        found = self._running().returncode
        if code is not None and found != code:
            raise FaultError(f"exit {found} instead of {code}\n{self.tail()}")
        return int(found)

    def clean_up(self) -> None:
        """End whatever still runs, after a fault that was not survived."""
        if self.process is not None and self.process.poll() is None:
            self.see_processes()
            self.process.kill()
            self.process.wait()
        for process in self._below.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def says(self, text: str) -> None:
        """Check that the last session told something.

        Raises:
            FaultError: It did not.
        """
        if text not in self.log.read_text(encoding="utf-8", errors="replace"):
            raise FaultError(f"{text!r} was not told\n{self.tail()}")

    def tail(self) -> str:
        """Return the end of what the last session printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-1500:]

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise FaultError("nothing was started")
        return self.process

    def _look_for_recovery(self) -> None:
        """Find the first record since the fault, and how many steps before it are done again."""
        if self._before is None or self.recovery.seconds is not None:
            return
        for file, before in self._before.items():
            if not file.is_file():
                continue
            # A line that a fault tore is no record.
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            now = [line for line in lines if line.endswith("}")]
            same = next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), None)
            same = min(len(before), len(now)) if same is None else same
            if len(now) > same:
                self.recovery.seconds = time.monotonic() - self._since
                lost = [line for line in before[same:] if '"kind": "train"' in line]
                self.recovery.steps_again = len(lost)
                return


def _is_settled(run: Path) -> bool:
    result = folder_at(run).read_result()
    return result is not None and result.state != "interrupted"


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""
