"""Sessions of a training in processes of their own, cut by a signal at a step that was drawn before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from dure.errors import RunError
from dure.events import RunListener, RunProgress
from dure.runs.folder import RunResult

_COMMAND = "from dure.resume_check.sessions import main; main()"
_INTERRUPTED = 130
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 60.0
_LAST_LINES = 15


@dataclass(frozen=True)
class Cut:
    """Where a session is cut.

    The signal comes when the loss of the step is recorded, before anything is saved of it.
    """

    step: int
    number: signal.Signals


def drawn_cuts(num_steps: int, num_kills: int, seed: int) -> list[Cut]:
    """Draw where sessions are killed, and where one is asked to stop, in the order of the steps.

    ``num_kills`` are by ``SIGKILL``, one by ``SIGTERM`` comes on top, and none is at the last step.

    Raises:
        ValueError: There are not as many steps.
    """
    chance = random.Random(seed)
    steps = chance.sample(range(1, num_steps), num_kills + 1)
    return sorted(
        [Cut(steps[0], signal.SIGTERM), *(Cut(step, signal.SIGKILL) for step in steps[1:])],
        key=lambda cut: cut.step,
    )


class Cutting(RunListener):
    """Sends a signal to the session that trains, from wherever it trains."""

    def __init__(self, cut: Cut, driver: int) -> None:
        self.cut = cut
        self.driver = driver
        self._is_done = False

    def progressed(self, progress: RunProgress) -> None:
        """Cut at the record of the step, or of the first one after it."""
        if self._is_done or progress.kind != "train" or progress.step < self.cut.step:
            return
        self._is_done = True
        os.kill(self.driver, self.cut.number)
        if self.cut.number == signal.SIGKILL:
            # A worker of a cluster would go on until that ends too.
            os.kill(os.getpid(), signal.SIGKILL)


def run_session(experiment: Path, profile: Path, folder: Path, log: Path, cut: Cut | None) -> bool:
    """Train, or continue, until the end or the cut, in a process of its own; return whether that was the end.

    Experiment and profile are YAML files; ``log`` gets what the process prints.

    Raises:
        RunError: The process ended in a way that was not asked for.
    """
    words = [] if cut is None else [str(cut.step), str(int(cut.number))]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(experiment), str(profile), str(folder), *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            code = _waited_for(process)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code == 0:
        return True
    if cut is not None and code in (-int(cut.number), _INTERRUPTED):
        return False
    lines = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
    raise RunError(f"a session ended with code {code} that was not cut (see {log}):\n{lines}")


def _waited_for(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process and for all that it had started: what lives on would write into the same folder."""
    started: set[psutil.Process] = set()
    while True:
        try:
            code = process.wait(_SECONDS_BETWEEN_LOOKS)
            break
        except subprocess.TimeoutExpired:
            started |= set(psutil.Process(process.pid).children(recursive=True))
    _, alive = psutil.wait_procs(list(started), timeout=_SECONDS_TO_END)
    if alive:
        raise RunError(f"processes {', '.join(str(each.pid) for each in alive)} outlived their session")
    return code


def main() -> None:
    """Run a session; its process begins here.

    Its arguments are experiment, profile and folder, then step and signal of the cut, if it is to be cut.
    """
    from dure.config.loading import load_experiment, load_profile
    from dure.reporting.console import RunConsole
    from dure.reporting.terminal import Terminal
    from dure.runtime.experiment import train
    from dure.signals import Interrupted, install

    experiment, profile, folder, *cut = sys.argv[1:]
    listeners: list[RunListener] = []
    if cut:
        listeners.append(Cutting(Cut(int(cut[0]), signal.Signals(int(cut[1]))), os.getpid()))
    install()
    try:
        with Terminal() as screen:
            result: RunResult = train(
                load_experiment(experiment),
                profile=load_profile(profile),
                path=Path(folder),
                resume=Path(folder).is_dir(),
                follower=RunConsole(screen),
                listeners=listeners,
            )
    except Interrupted:
        sys.exit(_INTERRUPTED)
    sys.exit(0 if result.state == "completed" else 1)
