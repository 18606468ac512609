"""One process at a time works in a folder, and one that was killed leaves it free."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest

from dure.errors import UserError
from dure.runs import lock
from dure.runs.lock import LOCK, held, require_free

SOURCE = str(Path(lock.__file__).parents[2])
HOLD = """
import sys, time
from pathlib import Path
from dure.runs import lock
lock.BEAT_SECONDS = 0.1
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def started(folder: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with started(folder, 60) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def from_elsewhere(folder: Path, *, seconds_ago: float) -> None:
    """Leave the lock of a process on another machine, whose last heartbeat was so long ago."""
    with held(folder):
        named = json.loads((folder / LOCK).read_text())
    (folder / LOCK).write_text(json.dumps({**named, "host": "elsewhere", "pid": 4711, "token": "theirs"}))
    os.utime(folder / LOCK, (time.time() - seconds_ago,) * 2)


def test_a_second_process_is_refused_and_told_who_works_there(tmp_path):
    with holder(tmp_path) as first:
        with pytest.raises(UserError) as refused, held(tmp_path):
            pass
        text = str(refused.value)
        assert f"process {first.pid} of {os.uname().nodename} works in it since 20" in text
        assert "-c" in text  # its command
        assert f"`kill {first.pid}`" in text
        assert refused.value.exit_code == 2
        require_free(tmp_path / "not" / "there" / "yet" / "at")


def test_a_killed_process_leaves_the_folder_free_at_once(tmp_path):
    with holder(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (tmp_path / LOCK).exists()
        with held(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_a_killed_process_that_nobody_waited_for_holds_nothing(tmp_path):
    with holder(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
        with held(tmp_path):
            pass


def test_a_suspended_process_still_holds_the_folder(tmp_path):
    with holder(tmp_path) as first:
        first.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        with pytest.raises(UserError, match=f"kill -CONT {first.pid}"), held(tmp_path):
            pass


def test_a_process_that_the_system_hides_from_other_users_still_holds_the_folder(tmp_path, monkeypatch):
    real = os.kill

    def of_another(pid, number):
        if number == 0:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(pid, number)

    with holder(tmp_path) as first:
        monkeypatch.setattr(lock, "born", {os.getpid(): lock.born(os.getpid())}.get)  # /proc with hidepid=2
        monkeypatch.setattr(lock.os, "kill", of_another)
        with pytest.raises(UserError, match=f"process {first.pid} of"), held(tmp_path):
            pass
        first.send_signal(signal.SIGSTOP)
        os.utime(tmp_path / LOCK, (time.time() - lock.LEASE_SECONDS - 1,) * 2)
        with held(tmp_path):
            pass


def test_another_process_of_the_same_number_does_not_hold_the_folder(tmp_path):
    with holder(tmp_path):
        named = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).write_text(json.dumps({**named, "born": named["born"] - 1}))
        with held(tmp_path):
            pass


def test_a_holder_on_another_machine_is_believed_until_its_lease_is_over(tmp_path):
    from_elsewhere(tmp_path, seconds_ago=lock.LEASE_SECONDS - 30)
    with (
        pytest.raises(UserError, match=r"(?s)process 4711 of elsewhere.*free within 60 s") as refused,
        held(tmp_path),
    ):
        pass
    assert "kill" not in str(refused.value)
    from_elsewhere_again = (time.time() - lock.LEASE_SECONDS - 1,) * 2
    os.utime(tmp_path / LOCK, from_elsewhere_again)
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["host"] != "elsewhere"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EROFS])
def test_a_dead_holder_on_another_machine_is_none_to_those_who_may_only_read(refusal, tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise OSError(refusal, os.strerror(refusal), str(path))

    from_elsewhere(tmp_path, seconds_ago=lock.LEASE_SECONDS + 5)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", refuse)
        assert lock.holder_of(tmp_path) is None
        os.utime(tmp_path / LOCK)
        assert lock.holder_of(tmp_path).host == "elsewhere"


def test_a_lock_that_says_nothing_is_believed_as_long_as_a_lease(tmp_path):
    (tmp_path / LOCK).write_text("")
    with pytest.raises(UserError, match="an unknown machine"), held(tmp_path):
        pass
    os.utime(tmp_path / LOCK, (time.time() - lock.LEASE_SECONDS - 1,) * 2)
    with held(tmp_path):
        pass


def test_a_live_holder_renews_its_lease(tmp_path):
    with holder(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_who_lost_its_lease_to_another_machine_ends_before_it_writes_more(tmp_path):
    with holder(tmp_path) as first:
        first.send_signal(signal.SIGSTOP)
        (tmp_path / LOCK).unlink()
        from_elsewhere(tmp_path, seconds_ago=0)
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=10) == 1
        assert "process 4711 of elsewhere works in it" in first.stderr.read()
    assert json.loads((tmp_path / LOCK).read_text())["token"] == "theirs"


@pytest.mark.parametrize(
    "said", [OSError(errno.ESTALE, "Stale file handle"), '{"host": "cut', ""], ids=["stale", "cut", "empty"]
)
def test_who_cannot_read_its_lock_for_a_moment_goes_on(said, tmp_path, monkeypatch):
    real, said_so = Path.read_text, threading.Event()

    def read_text(path, *args, **kwargs):
        if path.name != LOCK or said_so.is_set():
            return real(path, *args, **kwargs)
        said_so.set()
        if isinstance(said, OSError):
            raise said
        return said

    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock.os, "_exit", ended := Mock())
    with held(tmp_path):
        monkeypatch.setattr(Path, "read_text", read_text)
        assert said_so.wait(10)
        os.utime(tmp_path / LOCK, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    ended.assert_not_called()
    assert not (tmp_path / LOCK).exists()


def test_a_full_disk_leaves_no_lock_that_names_nobody(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock.json, "dump", full)
        with pytest.raises(OSError, match="No space left"), held(tmp_path):
            pass
    assert not (tmp_path / LOCK).exists()
    with held(tmp_path):
        pass


def test_a_folder_whose_path_is_no_text_is_named_and_left_alone(tmp_path):
    folder = tmp_path / os.fsdecode("한글".encode("cp949"))  # as unpacking an archive of Windows leaves it
    folder.mkdir()
    with pytest.raises(UserError, match="no UTF-8"), held(folder / "run"):
        pass
    assert list(folder.iterdir()) == []


def test_a_process_knows_what_it_holds_when_its_machine_gets_another_name_or_time(tmp_path, monkeypatch):
    with held(tmp_path):
        monkeypatch.setattr(lock.socket, "gethostname", lambda: "elsewhere.fritz.box")
        monkeypatch.setattr(lock, "born", lambda pid: 4711.0)
        with held(tmp_path / "candidate_1"):
            require_free(tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_a_study_and_a_trial_of_it_exclude_each_other(tmp_path):
    trial = tmp_path / "candidate_1" / "stage_1_10pct"
    with holder(tmp_path) as study:
        with pytest.raises(UserError, match=f"process {study.pid}"), held(trial):
            pass
        assert not (trial / LOCK).exists()
    with holder(trial) as run:
        with pytest.raises(UserError, match=f"process {run.pid}"), held(tmp_path):
            pass
        assert not (tmp_path / LOCK).exists()
        with held(tmp_path.with_name("another")):
            pass


def test_what_a_process_holds_it_may_enter_again(tmp_path):
    with held(tmp_path):
        with held(tmp_path), held(tmp_path / "lr_sweep"):
            require_free(tmp_path)
        assert (tmp_path / LOCK).exists()


def test_of_many_that_take_over_from_the_dead_one_gets_the_folder(tmp_path):
    with holder(tmp_path) as dead:
        dead.kill()
        dead.wait()
    racers = [started(tmp_path, 3) for _ in range(4)]
    said = [process.communicate(timeout=60)[0] for process in racers]
    assert sorted(said) == ["", "", "", "held\n"]


def entered(folder: Path) -> str:
    try:
        with held(folder):
            return "entered"
    except UserError as error:
        return str(error)


def test_a_second_thread_and_a_forked_process_are_others_too(tmp_path):
    trial, other = tmp_path / "run" / "trial", tmp_path / "other"
    with held(tmp_path / "run"):
        with ThreadPoolExecutor(1) as threads:
            # Two at once would share random numbers, output and temporary files, wherever they lie.
            for folder in (trial, other):
                said = threads.submit(entered, folder).result()
                assert f"this process works in {tmp_path / 'run'} already, in another thread" in said
        with multiprocessing.get_context("fork").Pool(1) as forked:
            assert f"process {os.getpid()} of" in forked.apply(entered, (trial,))
            assert forked.apply(entered, (other,)) == "entered"
        assert entered(trial) == "entered"
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(entered, trial).result() == "entered"
