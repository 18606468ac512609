"""Background jobs beside their cluster: records, pid files, and an environment that nobody else reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dure.errors import UserError
from dure.jobs import background_environment as environment
from dure.jobs import background_folders as folders
from dure.jobs.background_records import ClusterKeeper, Records, records
from dure.jobs.jobs import Job
from dure.jobs.starting import start
from dure.runs.lock import born

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
def sleeper(**more: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()  # until it runs, it has the environment of this process
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def write_keeper(kept: Records, pid: int) -> None:
    kept.keeper_file.write_text(
        json.dumps(ClusterKeeper(pid, born(pid), "http://127.0.0.1:1", "s", "t").__dict__)
    )


def of_job(kept: Records) -> dict[str, str]:
    return {environment.JOB: JOB, environment.FILE: str(kept.environment(JOB))}


def write_claim(kept: Records, pid: int, folder: Path, earlier: float = 0) -> None:
    kept.claim(JOB).write_text(json.dumps({"pid": pid, "born": born(pid) - earlier, "path": str(folder)}))


def test_what_runs_in_a_folder_is_found_by_its_pid_file_and_a_stale_one_is_not_believed(kept, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with sleeper(**of_job(kept)) as process:
        (folder / "dure.pid").write_text(f"{process.pid}\n", encoding="utf-8")
        (folder / "server.pid").write_text("1\n", encoding="utf-8")  # of somebody else
        write_claim(kept, process.pid, folder)
        assert folders.find(folder).pid == process.pid
        with pytest.raises(UserError, match=f"process {process.pid} works in this folder"):
            folders.claim(folder)
        assert folders.stop(folder) == process.pid
        process.wait(timeout=10)
    assert [file.name for file in folder.glob("*.pid")] == ["server.pid"]
    with sleeper(**of_job(kept)) as process:  # of another command, which works elsewhere
        (folder / "dure.pid").write_text(f"{process.pid}\n", encoding="utf-8")
        write_claim(kept, process.pid, tmp_path / "other")
        assert folders.find(folder) is None
        write_claim(kept, process.pid, folder, earlier=1)  # its number was given anew
        assert folders.find(folder) is None
        assert process.poll() is None
    with sleeper() as stranger:
        (folder / "dure.pid").write_text(f"{stranger.pid}\n", encoding="utf-8")
        assert folders.find(folder) is None
        folders.claim(folder)
    with pytest.raises(UserError, match="--background"):
        folders.stop(folder)


@pytest.mark.parametrize("form", [("--output", "run"), ("-o", "run"), ("--output=run",)])
def test_a_second_job_in_a_folder_is_refused_before_anything_starts(form, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with sleeper(**of_job(kept)) as process:
        write_claim(kept, process.pid, tmp_path / "run")
        (tmp_path / "run" / "dure.pid").write_text(f"{process.pid}\n", encoding="utf-8")
        with pytest.raises(UserError, match=f"process {process.pid}"):
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
    source = str(Path(environment.__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": source, environment.FILE: str(file)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.split() == ["secret-of-nobody", "None", str(tmp_path)]
    kept.forget_environment(JOB)
    assert not file.exists()


def test_a_claim_of_a_background_job_says_where_it_works_and_ends_with_its_process(kept, tmp_path):
    code = (
        "import json, sys; from pathlib import Path; from dure.jobs.background_folders import claim;"
        "claim(Path('run'), pid_file='mine.pid'); print(Path('run/mine.pid').read_text())"
    )
    source = str(Path(environment.__file__).parents[2])
    job_of = {"DURE_JOB": JOB, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_ADDRESS": "10.0.0.1:1"}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source, **job_of}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    claim = kept.read_claim(JOB)
    assert claim.pop("born") > 0
    assert claim == {"pid": int(ended.stdout), "path": str(tmp_path / "run")}
    assert not (tmp_path / "run" / "mine.pid").exists()
