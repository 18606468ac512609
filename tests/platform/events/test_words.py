"""Words are on the user's screen at once in every way of running, above all that the disk is full."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dure.events import (
    EventLog,
    Follower,
    Notice,
    RunListener,
    RunProgress,
    StudyListener,
    read_events,
)
from dure.runtime.experiment import train
from dure.runtime.relay import Relay
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from tests.platform.small_disk import fill
from tests.platform.studies.two_nodes import several_nodes

SECONDS = 5.0
"""Most that may pass; beside other loads it is still below two."""


class Filling(RunListener):
    """Fills the disk from the process that trains, and notes when that was."""

    def __init__(self, disk: Path, note: Path) -> None:
        self.disk, self.note = disk, note

    def progressed(self, progress: RunProgress) -> None:
        if progress.step == 3 and not self.note.exists():
            fill(self.disk, 0)
            self.note.write_text(repr(time.time()))


class Words:
    """Notes when it was heard that the disk is full, and frees it then."""

    def __init__(self, disk: Path, note: Path) -> None:
        self.disk, self.note = disk, note
        self.lines: list[str] = []
        self.at = 0.0

    def hear(self, message: str) -> None:
        self.lines.append(message)
        if "paused: " in message and not self.at:
            self.at = time.time()
            threading.Timer(0.5, (self.disk / "filler").unlink).start()

    def seconds(self) -> float:
        """Return the seconds from the full disk to the words."""
        seconds = self.at - float(self.note.read_text())
        print(f"{seconds:.2f} s until the words were heard")
        return seconds


class HearsRun(RunListener):
    def __init__(self, words: Words) -> None:
        self.words = words

    def notified(self, message: str) -> None:
        self.words.hear(message)


class HearsStudy(StudyListener):
    def __init__(self, words: Words) -> None:
        self.words = words

    def notified(self, message: str) -> None:
        self.words.hear(message)


@pytest.mark.slow
def test_a_full_disk_is_heard_of_at_once_from_a_trial_of_a_batch(
    tiny, cpu, tmp_path, small_disk, ray_address
):
    disk, note = small_disk(60), tmp_path / "full"
    experiment = tiny("t5", "lora")
    words = Words(disk, note)
    study = BatchStudy(kind="batch", name="one", experiments=(experiment.name,))
    summary = run_study(
        Batch(study, [experiment]),
        profile=cpu,
        path=disk / "study",
        follower=HearsStudy(words),
        listeners=lambda experiment: [Filling(disk, note)],
        address=ray_address,
    )
    assert words.seconds() < SECONDS
    assert summary.state == "completed"
    paused = [line for line in words.lines if "paused: " in line]
    assert [line.startswith(f"{experiment.name}: paused: ") for line in paused] == [True]
    assert any(line.startswith(f"{experiment.name}: there is room again") for line in words.lines)


@pytest.mark.slow
def test_what_is_said_on_another_node_reaches_the_driver_once_and_in_its_order(tmp_path):
    import ray

    with several_nodes({"CPU": 1}, {"CPU": 1}) as nodes:
        ray.init(nodes.address, log_to_driver=False)
        relay = Relay.to_here()
        follower = Follower(tmp_path / "events.jsonl")

        @ray.remote(num_cpus=0)
        def say(word: str) -> None:
            log = EventLog(tmp_path / "events.jsonl", word, partial(relay.send, "trial"))
            log.notified(f"{word} one")
            log.notified(f"{word} two")

        for node, word in zip(nodes.ids, ("here", "there"), strict=True):
            ray.get(
                say.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(word)
            )
        came = relay.received()
        assert [name for name, _ in came] == ["trial", "trial"]
        assert relay.received() == []
    heard = [entry.event.message for entry in follower.new(line for _, line in came)]
    assert heard == ["here one", "here two", "there one", "there two"]
    unseen = Follower(tmp_path / "of-another-machine" / "events.jsonl")
    assert [entry.event.message for entry in unseen.new(line for _, line in came)] == [
        "there one",
        "there two",
    ]


@pytest.mark.slow
def test_a_full_disk_is_heard_of_at_once_from_two_workers(tiny, cpu, tmp_path, small_disk):
    disk, note = small_disk(60), tmp_path / "full"
    words = Words(disk, note)
    result = train(
        tiny("t5", "lora"),
        profile=cpu.with_({"num_workers": 2}),
        path=disk / "run",
        follower=HearsRun(words),
        listeners=[Filling(disk, note)],
    )
    assert words.seconds() < SECONDS
    assert result.state == "completed"
    assert sum("paused: " in line for line in words.lines) == 1


@pytest.mark.slow
def test_a_full_disk_is_in_the_log_of_a_background_run_at_once(tmp_path, small_disk):
    disk = small_disk(60)
    environment = {**os.environ, "DURE_CACHE": str(tmp_path / "cache")}
    dure = [sys.executable, "-m", "dure"]
    begun = subprocess.run(
        [
            *(*dure, "train", "kobart_baseline", "--rehearse", "--background", "--json"),
            *("--output", str(disk / "run"), "wandb.enabled=false", "tokenizer.encoder_max_len=64"),
            *("rehearsal.max_steps=400", "rehearsal.num_evaluations=40", "generation.num_beams=1"),
            "training.log_every=1",
        ],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    job = begun.stdout.partition('"job": "')[2].partition('"')[0]
    with subprocess.Popen(
        [*dure, "logs", job, "--follow"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    ) as logs:  # fmt: skip
        try:
            while not list((disk / "run").glob("checkpoint-*")):
                time.sleep(0.1)
            full = time.time()
            filler = fill(disk, 0)
            while "paused: " not in logs.stdout.readline():
                assert logs.poll() is None
            heard = time.time()
            (said,) = [
                entry.at.timestamp()
                for entry in read_events(disk / "run" / "events.jsonl")
                if isinstance(entry.event, Notice) and entry.event.message.startswith("paused: ")
            ]
            filler.unlink()
        finally:
            subprocess.run([*dure, "stop", job], env=environment, cwd=tmp_path, check=True)
            logs.wait()
    print(
        f"{said - full:.2f} s until the run came to the full disk, {heard - said:.2f} s until the words were heard"
    )
    assert heard - said < SECONDS
