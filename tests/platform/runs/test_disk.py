"""A full disk: nothing is cut, the run waits and says so, and goes on when there is room."""

from __future__ import annotations

import errno
import logging
import threading
import time

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from dure.config.storage import StorageConfig
from dure.errors import RunError, UserError
from dure.events import RunListener
from dure.files import append_json_line, is_disk_full, read_json_lines
from dure.runs import checkpoints
from dure.runs.disk import DiskRoom
from dure.runs.folder import RunFolder
from dure.runs.forecast import Forecast
from dure.runs.logs import captured_output
from dure.runs.manifest import faults
from dure.training.run import RunRequest, run
from dure.training.worker import StopRequested
from tests.platform.small_disk import MEGABYTE, fill


@pytest.fixture
def hurried(monkeypatch):
    """Let a run look for room ten times a second."""
    monkeypatch.setattr(DiskRoom, "look_seconds", 0.1)


class _Notes(RunListener):
    def __init__(self, act=lambda message: None):
        self.lines, self.act = [], act

    def notified(self, message):
        self.lines.append(message)
        self.act(message)


def test_what_fails_for_want_of_room_is_told_from_other_failures(small_disk):
    disk = small_disk(2)
    fill(disk, 100_000)
    with pytest.raises((OSError, RuntimeError)) as failure:
        torch.save({"a": torch.zeros(1_000_000)}, disk / "a.pt")
    assert is_disk_full(failure.value)
    with pytest.raises(SafetensorError) as failure:
        save_file({"a": torch.zeros(1_000_000)}, disk / "a.safetensors")
    assert is_disk_full(failure.value)
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(OSError(errno.EACCES, "denied"))
    assert not is_disk_full(RuntimeError("shapes differ"))


def test_a_record_that_does_not_fit_leaves_the_records_as_they_were(small_disk):
    disk = small_disk(2)
    path = disk / "metrics.jsonl"
    append_json_line(path, {"step": 1})
    before = path.read_bytes()
    filler = fill(disk, 0)
    with pytest.raises(OSError, match="space"):
        append_json_line(path, {"step": 2, "filling": "x" * 20_000})
    assert path.read_bytes() == before
    filler.unlink()
    append_json_line(path, {"step": 2})
    assert [row["step"] for row in read_json_lines(path)] == [1, 2]


def test_a_line_that_a_kill_tore_is_removed_by_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for torn in (b'{"step": 1}\n{"st', b'{"st', b'{"step": 1}\n{"' + b"x" * 9000):
        path.write_bytes(torn)
        append_json_line(path, {"step": 2})
        assert read_json_lines(path)[-1] == {"step": 2}


def test_a_run_on_a_full_disk_pauses_and_ends_in_the_same_model_once_there_is_room(
    tiny, cpu, tmp_path, small_disk, hurried
):
    experiment = tiny("t5", "lora")
    undisturbed = run(RunRequest(experiment, cpu, tmp_path / "undisturbed"))
    disk = small_disk(40)
    filler = []

    class Filling(_Notes):
        def progressed(self, progress):
            if progress.step == 3 and not filler:
                filler.append(fill(disk, 0))

    def free_soon(message):
        if message.startswith("paused: "):
            threading.Timer(0.4, filler[0].unlink).start()

    notes = Filling(free_soon)
    result = run(RunRequest(experiment, cpu, disk / "run", listeners=(notes,)))
    paused = [line for line in notes.lines if line.startswith("paused: ")]
    assert len(paused) == 1
    assert "nothing is lost" in paused[0]
    assert any(line.startswith("there is room again") for line in notes.lines)
    assert result.metrics["eval_loss"] == undisturbed.metrics["eval_loss"]
    weights = [
        RunFolder(each).final_model / "model.safetensors" for each in (disk / "run", tmp_path / "undisturbed")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for path in checkpoints.checkpoints(disk / "run").values():
        assert faults(path) == []
    steps = [row["step"] for row in read_json_lines(disk / "run" / "metrics.jsonl") if "loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_that_waits_too_long_ends_whole_and_is_resumed(tiny, cpu, small_disk, hurried):
    disk = small_disk(40)
    impatient = cpu.model_copy(update={"storage": StorageConfig(pause_minutes=0.01)})
    filler = []

    class Filling(_Notes):
        def progressed(self, progress):
            if progress.step == 3 and not filler:
                # Room for records but not for the reserve.
                filler.append(fill(disk, 5 * MEGABYTE))

    request = RunRequest(tiny("t5", "lora"), impatient, disk / "run", listeners=(Filling(),))
    with pytest.raises(RunError, match=r"MB needed for checkpoint-4.*--resume goes on"):
        run(request)
    assert list(checkpoints.checkpoints(disk / "run")) == [2]
    assert RunFolder(disk / "run").read_result().state == "failed"
    filler[0].unlink()
    notes = _Notes()
    result = run(RunRequest(tiny("t5", "lora"), cpu, disk / "run", resume=True, listeners=(notes,)))
    assert result.metrics["steps"] == 6
    steps = [row["step"] for row in read_json_lines(disk / "run" / "metrics.jsonl") if "loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_what_another_process_takes_in_the_middle_of_writing_leaves_no_part_and_is_written_again(
    tmp_path, small_disk, hurried
):
    disk, told = small_disk(40), []
    room = DiskRoom(disk, StorageConfig(), notify=told.append)
    part = disk / "part"
    filler = []

    def write():
        if not filler:
            filler.append(fill(disk, 100_000))
            threading.Timer(0.4, filler[0].unlink).start()
        torch.save({"a": torch.zeros(250_000)}, part)

    room.write("the model", 0, [write], clean=lambda: part.unlink(missing_ok=True))
    assert torch.load(part, weights_only=True)["a"].numel() == 250_000
    assert told[0].startswith("paused: the disk got full while the model was written")
    assert len(told) == 2


def test_a_step_that_fails_otherwise_is_not_repeated(tmp_path):
    room = DiskRoom(tmp_path, StorageConfig(), notify=print)
    with pytest.raises(ZeroDivisionError):
        room.write("it", 0, [lambda: 1 / 0])


def test_a_pause_says_once_a_minute_what_is_lacking_and_ends_in_time(tmp_path, monkeypatch):
    told, clock = [], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    room = DiskRoom(tmp_path, StorageConfig(pause_minutes=5), notify=told.append)
    with pytest.raises(RunError, match="after 5 minutes"):
        room.write("it", 10**18, [lambda: None])
    assert len(told) == 5
    assert "1100000000.0 GB needed for it; free some or Ctrl-C; nothing is lost" in told[0]


def test_a_stop_that_is_asked_for_ends_a_pause(tmp_path):
    told = []

    def stop():
        raise StopRequested

    room = DiskRoom(tmp_path, StorageConfig(), notify=told.append, check_stop=stop)
    with pytest.raises(StopRequested):
        room.write("it", 10**18, [lambda: None])
    assert told[0].startswith("paused: ")


def _foretold(checkpoint, final_model):
    return Forecast(checkpoint, 3, 0, 0, final_model)


def test_a_run_that_cannot_fit_is_refused_before_it_starts(tmp_path):
    room = DiskRoom(tmp_path, StorageConfig(), notify=print)
    with pytest.raises(UserError, match=r"are free, and the run needs [\d.]+ GB"):
        room.check(_foretold(10**15, 10**15), 0)
    tight = DiskRoom(tmp_path, StorageConfig(max_gb=0.001), notify=print)
    tight.check(_foretold(300_000, 300_000), 0)
    with pytest.raises(UserError, match=r"needs 3.0 MB at least, more than storage.max_gb 0.001"):
        tight.check(_foretold(10**6, 10**6), 0)


def test_a_log_on_a_full_disk_ends_nothing_and_goes_on_once_there_is_room(small_disk):
    log = small_disk(2) / "run.log"
    with captured_output(log):
        print("before")
        filler = fill(log.parent, 0)
        for number in range(300):
            print(f"{number}: what a library prints")
            logging.getLogger("dure").info("and what is logged")
        filler.unlink()
        print("after")
        filler = fill(log.parent, 0)
        print("the last line of a run that was stopped" * 200)
    filler.unlink()
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert any(line.endswith("after") for line in lines)


def test_a_log_takes_names_that_are_no_text(tmp_path):
    with captured_output(tmp_path / "run.log"):
        print("a library names /data/\udcc7\udcd1")
    assert (tmp_path / "run.log").read_text(encoding="utf-8") == "a library names /data/\\udcc7\\udcd1\n"
