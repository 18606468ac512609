"""Faults that come from outside: suspension, a second command, a folder or a cache that is not what it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dure.runs.lock import LOCK
from tests.faults.faults import begin
from tests.faults.scene import FaultError, Scene
from tests.platform.removing import remove

_SECONDS_SUSPENDED = 8.0
"""Longer than what anything in dure waits for a sign of life of a process on the same machine."""
_LONGEST_START = 20.0
"""Seconds within which a kill may come before the first step."""


def suspended(title: str | None = None) -> Callable[[Scene], None]:
    """Return the fault of a command, or a process below it, that stands still for a while and goes on."""

    def happen(scene: Scene) -> None:
        begin(scene)
        scene.signal(signal.SIGSTOP, title)
        time.sleep(_SECONDS_SUSPENDED)
        scene.signal(signal.SIGCONT, title)
        scene.finish()

    return happen


def second_command(scene: Scene) -> None:
    """A second command on the folder is refused; the first notices nothing."""
    scene.start()
    scene.wait(lambda: (scene.output / LOCK).exists(), "the folder was taken")
    _refuses_another(scene, resume=False)
    scene.finish()


def second_command_while_suspended(scene: Scene) -> None:
    """A suspended command still holds its folder; killed, it holds nothing."""
    begin(scene)
    scene.signal(signal.SIGSTOP)
    _refuses_another(scene, resume=True)
    scene.kill()
    scene.finish(None)
    scene.resume()


def _refuses_another(scene: Scene, *, resume: bool) -> None:
    code, said = scene.another(resume=resume)
    if code != 2 or "works in it since" not in said:
        raise FaultError(f"the second command ended with {code}\n{said[-1500:]}")


def folder_removed(scene: Scene) -> None:
    """The folder is removed: the command fails in words, and a new one leaves what it would have left."""
    begin(scene)
    remove(scene.output)
    scene.finish(1)
    scene.says("was removed while this command worked in it")
    shutil.rmtree(scene.output, ignore_errors=True)
    scene.start()
    scene.finish()


def cache_changed(scene: Scene) -> None:
    """After a kill, token ids in the cache are others, in a file of the same size: they are encoded anew."""
    cache = scene.folder / "cache"
    scene.environment |= {"DURE_CACHE": str(cache)}
    begin(scene)
    scene.kill()
    scene.finish(None)
    entries = sorted((cache / "encoded").glob("*.arrow"))
    if not entries:
        raise FaultError("nothing was in the cache")
    for entry in entries:
        _change(entry)
    scene.resume()


def _change(file: Path) -> None:
    """Change bytes in the middle of a file, and neither its size nor its times."""
    facts = file.stat()
    data = bytearray(file.read_bytes())
    half = len(data) // 2
    data[half : half + 64] = bytes(byte ^ 1 for byte in data[half : half + 64])
    file.chmod(0o600)
    file.write_bytes(data)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def killed_at_a_result(scene: Scene) -> None:
    """``kill -9`` as soon as a first trial has its result, before the study did with it what it does."""
    scene.start()
    scene.wait(lambda: scene.holds("result.json"), "a trial had its result")
    scene.kill()
    scene.finish(None)
    scene.resume()


def killed_at_random(seed: int, *, times: int = 5) -> Callable[[Scene], None]:
    """Return the fault of a training that is killed again and again: in its start, in steps, in validations."""

    def happen(scene: Scene) -> None:
        draw = random.Random(seed)
        for number in range(times):
            scene.start(resume=(scene.output / "experiment.yaml").exists())
            if draw.random() < 0.4:
                _wait_unless_over(scene, draw.uniform(0, _LONGEST_START))
            else:
                step = (scene.study.steps - 2 * scene.study.interval) * (number + draw.random()) / times
                scene.wait(
                    lambda step=step: any(run.step >= step for run in scene.runs()), f"step {step:.0f} came"
                )
                time.sleep(draw.uniform(0, 0.3))
            scene.kill()
            scene.finish(None)
        scene.resume()

    return happen


def _wait_unless_over(scene: Scene, seconds: float) -> None:
    """Wait so long, or until the last step but a few is done."""
    until = time.monotonic() + seconds
    last = scene.study.steps - 2 * scene.study.interval
    while time.monotonic() < until and not any(run.step >= last for run in scene.runs()):
        time.sleep(0.05)
