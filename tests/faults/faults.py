"""Faults that end a process or break a file: each a function that disturbs a scene and brings it to its end."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.faults.scene import FaultError, Progress, Scene

INTERRUPTED = 130
TRIAL = "^ray::[^ ]+/"
"""Trials bear the names of study and trial."""
WORKER = "ray::RayTrainWorker"
CONTROLLER = "ray::TrainController"
RAYLET = "raylet/raylet"
GCS = "gcs/gcs_server"
AGENT = "ray::RuntimeEnvAgent"
DASHBOARD_AGENT = "ray::DashboardAgent"


def begin(scene: Scene) -> Progress:
    """Start, and wait until a run is past its first checkpoint; in a study of several, until one has ended too."""
    scene.start()
    several = scene.study.name in ("batch", "sweep", "crossval", "comparison", "candidates")
    if scene.study.name == "progressive":
        return scene.underway(within="stage_2")
    if scene.study.name == "unified":
        return scene.underway(settled=5)  # the points of its sweep
    return scene.underway(settled=1 if several else 0)


def driver_killed(scene: Scene) -> None:
    """``kill -9`` of the command; another session goes on."""
    begin(scene)
    scene.kill()
    scene.finish(None)
    scene.resume()


def stopped(number: int, *, twice: bool = False) -> Callable[[Scene], None]:
    """Return the fault of a signal that ends a command in order, or at once when it comes ``twice``."""

    def happen(scene: Scene) -> None:
        begin(scene)
        scene.signal(number)
        if twice:
            scene.signal(number)
        scene.finish(INTERRUPTED)
        scene.fault()
        scene.resume()

    return happen


def process_killed(title: str, number: int = 0) -> Callable[[Scene], None]:
    """Return the fault of a process below the command that is killed; the command goes on by itself."""

    def happen(scene: Scene) -> None:
        begin(scene)
        scene.kill(title, number)
        scene.finish()
        scene.says("restart 1 of 3")

    return happen


def ray_killed(title: str) -> Callable[[Scene], None]:
    """Return the fault of a killed part of Ray without which the cluster ends; another session goes on.

    A short run may be over before Ray notices.
    """

    def happen(scene: Scene) -> None:
        begin(scene)
        scene.kill(title)
        if scene.finish(None):
            scene.says("ended from outside")
            scene.resume()

    return happen


def checkpoint_broken(damage: Callable[[Path], None]) -> Callable[[Scene], None]:
    """Return the fault of a command that is killed, and whose newest checkpoint is damaged."""

    def happen(scene: Scene) -> None:
        run = _two_checkpoints(scene)
        scene.kill()
        scene.finish(None)
        newest = max(run.path.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        damage(newest)
        scene.resume()
        scene.says(newest.name)

    return happen


def _two_checkpoints(scene: Scene) -> Progress:
    scene.start()
    scene.wait(
        lambda: [run for run in scene.runs() if len(list(run.path.glob("checkpoint-*"))) > 1],
        "a run had two checkpoints",
    )
    return scene.underway()


def truncate(checkpoint: Path) -> None:
    """Cut the weights of a checkpoint in half."""
    file = checkpoint / "model.safetensors"
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)


def flip(checkpoint: Path) -> None:
    """Change one byte in the weights of a checkpoint."""
    file = checkpoint / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-5, 2)
        byte = stream.read(1)
        stream.seek(-5, 2)
        stream.write(bytes([byte[0] ^ 0x10]))


def empty(checkpoint: Path) -> None:
    """Leave the optimizer's state empty, as a power cut does."""
    (checkpoint / "optimizer.pt").write_bytes(b"")


def remove(checkpoint: Path) -> None:
    """Remove the optimizer's state."""
    (checkpoint / "optimizer.pt").unlink()


def killed_while_saving(scene: Scene) -> None:
    """``kill -9`` in the moment in which a checkpoint is being written."""
    scene.start()
    scene.wait(
        lambda: list(scene.output.glob("checkpoint-*")) and list(scene.output.glob(".checkpoint-*.part")),
        "a checkpoint was being written",
    )
    scene.kill()
    scene.finish(None)
    scene.resume()


def killed_before_the_end(scene: Scene) -> None:
    """``kill -9`` after the last step, before the run has its result."""
    scene.start()
    scene.wait(lambda: (scene.output / "checkpoint-80").is_dir(), "the last checkpoint was there")
    scene.kill()
    scene.finish(None)
    if (scene.output / "result.json").exists():
        raise FaultError("the kill came too late")
    scene.resume()


def records_torn(scene: Scene) -> None:
    """``kill -9``, with half a line at the end of the records."""
    begin(scene)
    scene.kill()
    scene.finish(None)
    with (scene.output / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')
    scene.resume()


def disk_full(*, stop: bool) -> Callable[[Scene], None]:
    """Return the fault of a disk that fills up: dure pauses until there is room, or until it is stopped."""

    def happen(scene: Scene) -> None:
        scene.output.mkdir(parents=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(scene.output)],
            check=False,
            capture_output=True,
        )
        if mounted.returncode:
            raise FaultError(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
        try:
            begin(scene)
            filler = scene.output / ".filler"
            _fill(filler)
            scene.wait(lambda: "paused" in scene.tail(), "dure paused")
            if stop:
                scene.signal(signal.SIGTERM)
                scene.finish(INTERRUPTED)
            filler.unlink()
            scene.fault()
            if stop:
                scene.resume()
            else:
                scene.finish()
            shutil.copytree(scene.output, scene.folder / "kept")
        finally:
            scene.clean_up()
            subprocess.run(["umount", "--lazy", str(scene.output)], check=True)
        scene.output.rmdir()
        (scene.folder / "kept").rename(scene.output)

    return happen


def _fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(65536))
        except OSError:
            return


def tracking_lost(scene: Scene) -> None:
    """W&B cannot be reached, from the beginning to the end."""
    scene.environment |= {
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_MODE": "online",
    }
    scene.start("wandb.enabled=true")
    scene.finish()


def killed_within(folder: str) -> Callable[[Scene], None]:
    """Return the fault of ``kill -9`` in the part of a pipeline that works in a folder."""

    def happen(scene: Scene) -> None:
        scene.start()
        scene.wait(lambda: scene.holds(folder), f"{folder} was there")
        scene.kill()
        scene.finish(None)
        scene.resume()

    return happen


def sweep_trial_killed(scene: Scene) -> None:
    """A process of the sweep that begins a pipeline is killed; the command goes on by itself."""
    scene.start()
    scene.wait(
        lambda: any(run.step and not run.is_settled for run in scene.runs()) and scene.processes(TRIAL),
        "a point of the sweep was under way",
    )
    scene.kill(TRIAL)
    scene.finish()
