"""Background jobs beside their cluster: records, folders, and an environment that nobody else reads."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from dure.errors import UserError
from dure.jobs import background_environment as environment
from dure.jobs import background_records, keeper
from dure.jobs.background_records import ClusterKeeper, Records, records
from dure.jobs.jobs import Job
from dure.jobs.keeper import clear_up
from dure.jobs.starting import start
from dure.runs.lock import LOCK, Holder, born, require_free

JOB = "dure-20261120-100000-abcd"


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Records:
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "cache"))
    return records()


def job(number: int = 0, state: str = "running") -> Job:
    return Job(
        f"dure-20261120-1000{number:02d}-abcd", state, "train x", None, 1.0, None, "http://127.0.0.1:1"
    )


@contextmanager
def running(code: str, *words: str, **more: str) -> Iterator[subprocess.Popen]:
    """A process of Python that prints a line when it runs, and is killed after the body."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env={**os.environ, **more}, stdout=subprocess.PIPE
    )
    process.stdout.readline()  # until it runs, it has the environment of this process
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def sleeper(**more: str) -> AbstractContextManager[subprocess.Popen]:
    return running("import time; print(flush=True); time.sleep(60)", **more)


def write_keeper(kept: Records, pid: int) -> None:
    kept.keeper_file.write_text(
        json.dumps(ClusterKeeper(pid, born(pid), "http://127.0.0.1:1", "s", "t").__dict__)
    )


HOLD = """
import sys, time
from pathlib import Path
from dure.jobs.background_records import claim
from dure.runs.lock import held
with held(Path(sys.argv[1])):
    claim(Path(sys.argv[1]), pid_file="mine.pid")
    print(flush=True)
    time.sleep(60)
"""
SOURCE = str(Path(environment.__file__).parents[2])


def job_in(folder: Path, job: str | None = JOB) -> AbstractContextManager[subprocess.Popen]:
    """A process that works in a folder, as the command of a background job or of a terminal."""
    named = {} if job is None else {"DURE_JOB": job}
    return running(HOLD, str(folder), PYTHONPATH=SOURCE, **named)


def rewrite_lock(folder: Path, **values: object) -> None:
    named = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    (folder / LOCK).write_text(json.dumps({**named, **values}), encoding="utf-8")


def test_what_runs_in_a_folder_is_found_by_its_lock_and_no_pid_file_is_believed(kept, tmp_path):
    folder = tmp_path / "run"
    with job_in(folder) as process:
        (folder / "server.pid").write_text("1\n", encoding="utf-8")  # of somebody else
        with pytest.raises(UserError, match=f"(?s)process {process.pid} of .*`dure stop {folder}`"):
            require_free(folder)
        assert background_records.stop(folder) == process.pid
    (folder / "mine.pid").unlink()  # SIGTERM alone leaves it; a command of dure ends in order
    with sleeper(DURE_JOB=JOB) as stranger:
        (folder / "dure.pid").write_text(f"{stranger.pid}\n", encoding="utf-8")
        with pytest.raises(UserError, match="--background"):
            background_records.stop(folder)
        assert stranger.poll() is None
    assert {file.name for file in folder.glob("*.pid")} == {"server.pid", "dure.pid"}


def test_only_the_job_that_works_in_a_folder_is_stopped(kept, tmp_path):
    folder, copy = tmp_path / "run", tmp_path / "copy"
    with job_in(folder) as process:
        shutil.copytree(folder, copy)  # its lock too
        with pytest.raises(UserError, match="nothing of dure runs there"):
            background_records.stop(copy)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        with pytest.raises(UserError, match=f"kill -CONT {process.pid}"):
            background_records.stop(folder)
        process.send_signal(signal.SIGCONT)
        rewrite_lock(folder, host="elsewhere")
        with pytest.raises(UserError, match="end it there"):
            background_records.stop(folder)
        rewrite_lock(
            folder, host=socket.gethostname(), born=born(process.pid) - 1
        )  # its number was given anew
        with pytest.raises(UserError, match="nothing of dure runs there"):
            background_records.stop(folder)
        assert process.poll() is None
    with job_in(tmp_path / "terminal", job=None) as process:
        with pytest.raises(UserError, match=f"`kill {process.pid}`"):
            background_records.stop(tmp_path / "terminal")
        assert process.poll() is None
        assert not (tmp_path / "terminal" / "mine.pid").exists()


@pytest.mark.parametrize("form", [("--output", "run"), ("-o", "run"), ("--output=run",)])
def test_a_second_job_in_a_folder_is_refused_before_anything_starts(form, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with job_in(tmp_path / "run") as process, pytest.raises(UserError, match=f"process {process.pid}"):
        start(["train", "x", *form, "--rehearse"])
    assert [file.name for file in kept.path.iterdir()] == [f"{JOB}.claim"]


def test_a_job_that_ran_when_its_keeper_died_has_failed(kept):
    with sleeper() as process:
        write_keeper(kept, process.pid)
        kept.write(job(1))
        kept.write(job(2, "succeeded"))
        assert [each.state for each in kept.jobs()] == ["running", "succeeded"]
    assert kept.keeper() is None
    assert [each.state for each in kept.jobs()] == ["failed", "succeeded"]


def test_another_process_of_the_keepers_number_is_not_the_keeper(kept):
    write_keeper(kept, os.getpid())
    assert kept.keeper() is not None
    found = json.loads(kept.keeper_file.read_text())
    kept.keeper_file.write_text(json.dumps({**found, "born": found["born"] - 1}))
    assert kept.keeper() is None
    kept.keeper_file.write_text("{")
    assert kept.keeper() is None


def test_what_another_machine_keeps_in_the_same_home_is_let_alone(kept, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "other")
    there = records()
    temporary = kept.path / "ray"
    temporary.mkdir()
    gone = ClusterKeeper(
        os.getpid(), 1.0, "http://127.0.0.1:1", "s", str(temporary)
    )  # no process of this machine
    there.keeper_file.write_text(json.dumps(vars(gone)))
    there.write_environment(JOB, {})
    there.write(job())
    monkeypatch.undo()
    clear_up(kept)
    assert kept.jobs() == []
    assert temporary.is_dir()
    assert there.environment(JOB).is_file()
    assert there.keeper_file.is_file()


def test_the_record_of_a_job_that_runs_stays_however_many_come_after_it(kept, monkeypatch):
    monkeypatch.setattr("dure.jobs.background_records._NUM_KEPT", 3)
    write_keeper(kept, os.getpid())
    long = job(0)
    kept.log(long.id).touch()
    kept.write_environment(long.id, {})
    kept.write(long)
    for number in range(1, 6):
        kept.write(job(number, "succeeded"))
    assert [each.id for each in kept.jobs()] == [job(number).id for number in (0, 3, 4, 5)]
    assert kept.environment(long.id).is_file()


def test_the_keeper_ends_no_job_for_a_dashboard_that_is_busy_or_a_full_disk(kept, monkeypatch, capsys):
    answers = [
        UserError("no answer in time"),
        UserError("no answer in time"),
        [job()],
        OSError(errno.ENOSPC, "No space left on device"),
        [job(state="succeeded")],
        [job(state="succeeded")],
    ]

    def looked(server):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(keeper, "jobs", looked)
    monkeypatch.setattr(keeper, "_SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(keeper, "_SECONDS_IDLE", -1)
    keeper._watch(kept, SimpleNamespace(poll=lambda: None), None, [])
    assert answers == []
    assert capsys.readouterr().out.count("no answer in time") == 1
    assert [each.state for each in kept.jobs()] == ["succeeded"]
    answers[:] = [UserError("no answer in time")]
    keeper._watch(kept, SimpleNamespace(poll=lambda: None), None, [15])


def test_old_records_go_with_their_logs(kept, monkeypatch):
    monkeypatch.setattr("dure.jobs.background_records._NUM_KEPT", 3)
    for number in range(5):
        kept.log(job(number).id).touch()
        kept.write(job(number, "succeeded"))
    assert [each.id for each in kept.jobs()] == [job(number).id for number in (2, 3, 4)]
    assert len(list(kept.path.glob("*.log"))) == 3


def test_an_environment_is_handed_on_whole_in_a_file_of_its_owner(kept, tmp_path, monkeypatch):
    shell = {
        "WANDB_API_KEY": "secret-of-nobody",
        "PATH": "/bin",
        "RAY_ADDRESS": "x",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    kept.write_environment(JOB, environment.handed_on(shell, tmp_path))
    file = kept.environment(JOB)
    assert file.stat().st_mode & 0o777 == 0o600
    assert kept.path.stat().st_mode & 0o777 == 0o700
    code = "import os; from dure.jobs import background_environment as e; e.load(); print(os.environ['WANDB_API_KEY'], os.environ.get('RAY_ADDRESS'), os.getcwd())"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": SOURCE, environment.FILE: str(file)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.split() == ["secret-of-nobody", "None", str(tmp_path)]
    kept.forget_environment(JOB)
    assert not file.exists()


def test_a_background_job_leaves_the_lock_of_its_folder_where_the_terminal_finds_it(kept, tmp_path):
    code = (
        "from pathlib import Path; from dure.jobs.background_records import claim; from dure.runs.lock import held\n"
        "with held(Path('run')): claim(Path('run'), pid_file='mine.pid'); print(Path('run/mine.pid').read_text())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCE, "DURE_JOB": JOB}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    holder = Holder(**json.loads(kept.claim(JOB).read_text(encoding="utf-8")))
    assert (holder.pid, holder.path, holder.job) == (int(ended.stdout), str(tmp_path / "run"), JOB)
    assert not (tmp_path / "run" / "mine.pid").exists()
