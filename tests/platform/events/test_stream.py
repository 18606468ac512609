"""The stream of a run: every line whole, none lost, none twice, whatever happens to its file."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from dure.events import (
    EventLog,
    Follower,
    Notice,
    RunListener,
    RunProgress,
    RunSaved,
    RunStart,
    StudyEnd,
    StudyStart,
    TrialStatus,
    follow,
    read_events,
    stream,
)
from dure.runs.folder import RunResult
from dure.training.run import RunRequest, run
from tests.platform.small_disk import fill

WRITER = """
import sys
from pathlib import Path
from dure.events import EventLog
log = EventLog(Path(sys.argv[1]), sys.argv[2])
for number in range(200):
    log.notified(f"{sys.argv[2]} {number} " + "글" * (number % 50))
"""


def _start(path: Path, resumed_step: int = 0) -> RunStart:
    return RunStart("first", path, {"a": {"b": 1}}, ("x",), None, 6, resumed_step)


def _progress(step: int, loss: float = 0.5) -> RunProgress:
    return RunProgress("train", step, 6, step / 6, 1.25 * step, {"loss": loss})


def _said(follower: Follower) -> list[object]:
    return [entry.event for entry in follower.new()]


class _Notes(RunListener):
    def __init__(self, act=lambda message: None) -> None:
        self.lines: list[str] = []
        self.steps: list[int] = []
        self.act = act

    def progressed(self, progress: RunProgress) -> None:
        self.steps.append(progress.step)

    def notified(self, message: str) -> None:
        self.lines.append(message)
        self.act(message)


def test_every_event_comes_back_as_it_was_said(tmp_path: Path) -> None:
    said = [
        _start(tmp_path, 2),
        _progress(3, 0.1 + 0.2),
        RunSaved(tmp_path / "checkpoint-3"),
        Notice("두레: paused\nfor now"),
        RunResult(
            "first", "completed", {"eval_loss": 1 / 3, "steps": 6, "final_weights": "ema"}, "checkpoint-3"
        ),
        StudyStart("seven", ("first", "last")),
        TrialStatus("first", "running", tmp_path, 3, 6, metrics={"loss": 0.5}),
        StudyEnd("seven", "completed", 12.5),
    ]
    log = EventLog(tmp_path / "run" / "events.jsonl", "worker 0")
    follower = Follower(tmp_path / "run" / "events.jsonl")
    for event in said:
        log.write(event)
        assert _said(follower) == [event]
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert {line["origin"] for line in lines} == {"worker 0"}
    assert [line["event"] for line in lines][:4] == ["started", "progress", "saved", "notice"]


def test_a_figure_that_is_not_finite_is_null_in_the_file_and_nan_for_who_follows(tmp_path: Path) -> None:
    EventLog(tmp_path / "events.jsonl", "worker 0").write(_progress(1, math.inf))
    (entry,) = read_events(tmp_path / "events.jsonl")
    assert math.isnan(entry.event.metrics["loss"])


def test_processes_that_write_at_once_never_mix_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    follower, heard = Follower(file), []
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in "abc"]
    while any(writer.poll() is None for writer in writers):
        heard += follower.new()
        time.sleep(0.01)
    heard += follower.new()
    for name in "abc":
        numbers = [int(each.event.message.split()[1]) for each in heard if each.origin == name]
        assert numbers == list(range(200))


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    log, follower = EventLog(file, "driver"), Follower(file)
    log.notified("one")
    with file.open("ab") as stream_file:
        stream_file.write(b'{"at": "2026-11-28T00:00:00+00:00", "orig')
    assert _said(follower) == [Notice("one")]
    log.notified("two")
    assert _said(follower) == [Notice("two")]
    with file.open("ab") as stream_file:
        stream_file.write(b'\n{"event": "of another age"}\n[]\n')
    log.notified("three")
    assert _said(follower) == [Notice("three")]


def test_a_stream_that_vanishes_and_comes_back_says_nothing_twice(tmp_path: Path) -> None:
    file, aside = tmp_path / "events.jsonl", tmp_path / "aside"
    log, follower = EventLog(file, "driver"), Follower(file)
    log.notified("one")
    assert _said(follower) == [Notice("one")]
    file.rename(aside)
    assert _said(follower) == []
    log.notified("two")  # a file of its own, shorter or longer than the one before
    assert _said(follower) == [Notice("two")]
    with file.open("rb") as now, aside.open("ab") as before:
        shutil.copyfileobj(now, before)
    aside.replace(file)
    log.notified("three")
    assert _said(follower) == [Notice("three")]
    assert _said(Follower(file)) == []


def test_numbers_of_steps_that_come_again_count_once(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    log = pickle.loads(pickle.dumps(EventLog(file, "worker 0")))  # noqa: S301
    log.write(_start(tmp_path))
    for step in (1, 2, 3):
        log.write(_progress(step, 0.9))
    log.notified("a worker died; restart 1 of 3 from checkpoint-2")
    log.write(_start(tmp_path, resumed_step=2))
    log.write(_progress(3, 0.8))
    events = [entry.event for entry in read_events(file)]
    steps = [(event.step, event.metrics["loss"]) for event in events if isinstance(event, RunProgress)]
    assert steps == [(1, 0.9), (2, 0.9), (3, 0.8)]
    assert sum(isinstance(event, Notice) for event in events) == 1


def test_a_stream_says_that_the_disk_is_full_on_a_full_disk(small_disk) -> None:
    file = small_disk(2) / "events.jsonl"
    log, follower = EventLog(file, "worker 0"), Follower(file)
    log.notified("begins")
    fill(file.parent, 0)
    for number in range(40):
        log.notified(f"paused {number}: the disk is full, free some or Ctrl-C; nothing is lost")
    assert len(_said(follower)) == 41


def test_what_finds_no_room_is_said_by_who_follows_and_comes_when_there_is_room(
    small_disk, monkeypatch
) -> None:
    monkeypatch.setattr(stream, "RESERVE_BYTES", 0)  # as on a file system that cannot reserve any
    file = small_disk(2) / "events.jsonl"
    log, follower = EventLog(file, "worker 0"), Follower(file)
    log.notified("begins" + "." * 5000)
    filler = fill(file.parent, 0)
    assert len(_said(follower)) == 2  # with the follower's own words
    for number in range(40):
        log.notified(f"paused {number}: " + "free some or Ctrl-C; " * 20)
    heard = _said(follower)
    filler.unlink()
    log.notified("there is room again")
    heard += _said(follower)
    assert [event.message.split(":")[0] for event in heard] == [
        *(f"paused {number}" for number in range(40)),
        "there is room again",
    ]


def test_a_full_disk_is_on_the_screen_at_once_while_the_run_waits(tiny, cpu, small_disk) -> None:
    disk = small_disk(40)
    at: dict[str, float] = {}

    class Filling(RunListener):
        def progressed(self, progress: RunProgress) -> None:
            if progress.step == 3 and "full" not in at:
                fill(disk, 0)
                at["full"] = time.monotonic()

    def free_soon(message: str) -> None:
        if message.startswith("paused: "):
            at["said"] = time.monotonic()
            threading.Timer(0.1, (disk / "filler").unlink).start()

    notes = _Notes(free_soon)
    with follow(disk / "run" / "events.jsonl", notes):
        result = run(RunRequest(tiny("t5", "lora"), cpu, disk / "run", listeners=(Filling(),)))
    print(f"in this process: {at['said'] - at['full']:.2f} s until the words were heard")
    assert at["said"] - at["full"] < 5
    assert result.state == "completed"
    assert sum(line.startswith("paused: ") for line in notes.lines) == 1
    assert any(line.startswith("there is room again") for line in notes.lines)
    assert sorted(set(notes.steps)) == list(range(7))
    assert [type(entry.event) for entry in read_events(disk / "run" / "events.jsonl")][-1] is RunResult


def test_the_stream_keeps_no_secret_wherever_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "v3ry-s3cret")
    relayed: list[bytes] = []
    log = EventLog(tmp_path / "events.jsonl", "worker 0", relayed.append)
    log.notified("postgresql://alice:pa-w0rd@db.lab/sweeps and v3ry-s3cret")
    log.write(TrialStatus("a", "failed", tmp_path, error="v3ry-s3cret is refused"))
    for text in ((tmp_path / "events.jsonl").read_text(encoding="utf-8"), b"".join(relayed).decode()):
        assert "w0rd" not in text
        assert "s3cret" not in text
    notice, status = (entry.event for entry in read_events(tmp_path / "events.jsonl"))
    assert notice == Notice("postgresql://alice:***@db.lab/sweeps and <hidden>")
    assert isinstance(status, TrialStatus)
    assert status.error == "<hidden> is refused"


def test_a_line_nested_without_end_is_left_out_like_other_broken_ones(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_text('{"event": ' + "[" * 100_000 + "\n", encoding="utf-8")
    EventLog(file, "driver").notified("after it")
    assert [entry.event for entry in read_events(file)] == [Notice("after it")]
