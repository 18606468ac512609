"""Two commands and one folder: never both, whoever is killed, suspended or refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dure.errors import UserError
from dure.events import RunStart
from dure.events.stream import EventLog
from dure.files import read_json_lines
from dure.outputs import output_folder, working_folder
from dure.runs.checkpoints import last_checkpoint
from dure.runs.folder import RunFolder, RunResult
from dure.runs.lock import LOCK, held
from dure.signals import Interrupted

from .conftest import TINY, call, environment, program

LONG = ("train", "transfer_bert", "--rehearse", "--profile", "cpu", "--json", *TINY, "rehearsal.max_steps=100000",
        "rehearsal.num_evaluations=50000", "training.epochs=100000", "training.early_stopping_patience=100000")  # fmt: skip


def begin(*words: object, cwd: Path) -> subprocess.Popen[str]:
    """Start a command of its own and wait until it has a checkpoint in ``run``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dure", *map(str, words)],
        cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while last_checkpoint(cwd / "run") is None:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_a_second_command_is_refused_while_the_first_lives_and_goes_on_when_it_was_killed(tmp_path):
    first = begin(*LONG, "--output", "run", cwd=tmp_path)
    try:
        for more in (["--resume"], []):
            refused = call(*LONG, "--output", "run", *more)
            assert refused.code == 2
            assert f"process {first.pid} of {os.uname().nodename} works in it since" in refused.err
            assert "dure train transfer_bert --rehearse" in refused.err
        first.send_signal(signal.SIGSTOP)
        suspended = call(*LONG, "--output", "run", "--resume")
        assert suspended.code == 2
        assert f"kill -CONT {first.pid}" in suspended.err
        # What the second one did has stopped nobody.
        assert not (tmp_path / "run" / "stop_requested").exists()
        before = len(read_json_lines(tmp_path / "run" / "metrics.jsonl"))
        first.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 60
        while len(read_json_lines(tmp_path / "run" / "metrics.jsonl")) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (tmp_path / "run" / LOCK).exists()
        step = int(last_checkpoint(tmp_path / "run").name.rpartition("-")[2])
        second = begin(*LONG, "--output", "run", "--resume", cwd=tmp_path)
        try:
            while int(last_checkpoint(tmp_path / "run").name.rpartition("-")[2]) <= step:
                assert second.poll() is None, second.stderr.read()
                time.sleep(0.05)
        finally:
            second.send_signal(signal.SIGTERM)
            assert second.wait(timeout=60) == 130
        assert not (tmp_path / "run" / LOCK).exists()
        steps = [
            each["step"]
            for each in read_json_lines(tmp_path / "run" / "metrics.jsonl")
            if each["kind"] == "train"
        ]
        assert steps == sorted(set(steps))
    finally:
        first.kill()


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_of_two_commands_at_once_on_one_folder_one_runs(resume, tmp_path):
    words = ("train", "transfer_bert", "--rehearse", "--profile", "cpu", "--json", "--output", "run", *TINY)
    if resume:
        assert call(*words, "rehearsal.max_steps=4").code == 0
        (tmp_path / "run" / "result.json").unlink()
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "dure", *words, *(["--resume"] if resume else [])],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [each.communicate(timeout=200) for each in both]
    assert sorted(each.returncode for each in both) == [0, 2]
    refused = next(err for each, (_, err) in zip(both, said, strict=True) if each.returncode == 2)
    assert "works in it since" in refused or "the folder is not empty" in refused


def test_two_commands_in_one_second_get_two_folders(tmp_path):
    folders = {output_folder("x", None, resume=False) for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() for folder in folders)


def test_the_newest_folder_is_that_of_the_latest_work_and_not_of_the_latest_name(tmp_path):
    for name, age in (("20261128-180000", 200), ("20261128-090000", 100), ("20261128-120000", 300)):
        (tmp_path / "outputs" / "x" / name).mkdir(parents=True)
        record = tmp_path / "outputs" / "x" / name / "experiment.yaml"
        record.touch()
        os.utime(record, (time.time() - age,) * 2)
    assert output_folder("x", None, resume=True).name == "20261128-090000"


def test_a_command_that_is_refused_leaves_its_folder_to_the_corrected_one(tmp_path):
    rows = [f'{{"id": "{n}", "text": "🀀🀁🀂 {n}", "label": "{n % 2}"}}' for n in range(8)]
    Path("odd.jsonl").write_text("\n".join(rows), encoding="utf-8")
    words = ("train", "transfer_bert", "--rehearse", "--profile", "cpu", "--json", *TINY)
    wrong = (
        *words,
        "data.train=odd.jsonl",
        "data.dev=null",
        "model.checkpoint=nowhere",
        "rehearsal.enabled=false",
    )
    for output in (["--output", "run"], []):
        refused = call(*(word for word in wrong if word != "--rehearse"), *output)
        assert refused.code == 2, refused.err
    assert [each.name for each in tmp_path.iterdir()] in (
        ["odd.jsonl"],
        ["odd.jsonl", "outputs"],
        ["outputs", "odd.jsonl"],
    )
    assert call(*words, "--output", "run").code == 0


def test_a_run_that_fails_by_a_mistake_is_recorded_until_the_corrected_command_takes_its_folder(tmp_path):
    rows = [f'{{"text": "좋은 글 {n}", "label": "{n % 2}"}}' for n in range(8)]
    Path("same.jsonl").write_text("\n".join(rows), encoding="utf-8")
    words = ("train", "transfer_bert", "--rehearse", "--profile", "cpu", "--json", *TINY, "--output", "run")
    assert call(*words, "data.train=same.jsonl", "data.dev=same.jsonl").code == 2
    assert '"failed"' in Path("run/result.json").read_text(encoding="utf-8")
    assert call(*words).code == 0
    assert '"completed"' in Path("run/result.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("more", ["metrics.jsonl", "notes.txt", "started"])
def test_a_failed_run_that_trained_or_has_other_files_beside_it_is_not_replaced(more, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_result(RunResult("x", "failed", error="memory ran out"))
    if more == "started":
        EventLog(folder.events, "worker 0").started(RunStart("x", folder.path, {}, (), None, 5), print)
    else:
        (folder.path / more).touch()
    with pytest.raises(UserError, match="not empty"):
        output_folder("x", folder.path, resume=False)
    assert folder.result.is_file()


@pytest.mark.parametrize("left", [".dure.lock", ".study.yaml.0123abcd0123abcd0123abcd.part"])
def test_a_command_that_was_killed_before_it_wrote_anything_may_be_typed_again(left, tmp_path):
    folder = tmp_path / "run"
    child = multiprocessing.get_context("fork").Process(target=_killed_at_work, args=(folder, left))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (folder / left).is_file()
    with pytest.raises(UserError, match="start without --resume"):
        output_folder("x", folder, resume=True)
    assert output_folder("x", folder, resume=False) == folder
    assert not [each for each in folder.iterdir() if each.name != ".dure.lock"]


def _killed_at_work(folder: Path, left: str) -> None:
    with held(folder):
        (folder / left).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _mistaken(folder: Path, *files: str) -> None:
    """Work in a folder, leave files, and find a mistake."""
    with working_folder("x", folder):
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
        raise UserError("wrong")


def test_what_was_trained_stays_when_a_mistake_is_found_late(tmp_path):
    (tmp_path / "own").mkdir()
    for name, leaves in (
        ("taken_back", []),
        ("own", []),
        ("kept", ["metrics.jsonl"]),
        ("study", ["trial/result.json"]),
        ("failed", ["result.json"]),
    ):
        folder = tmp_path / name
        with pytest.raises(UserError):
            _mistaken(folder, "experiment.yaml", *leaves)
        assert not (folder / LOCK).exists()
    assert not (tmp_path / "taken_back").exists()
    assert list((tmp_path / "own").iterdir()) == []
    assert (tmp_path / "kept" / "metrics.jsonl").exists()
    assert (tmp_path / "study" / "trial" / "result.json").exists()
    assert (tmp_path / "failed" / "result.json").exists()
    with working_folder("x", tmp_path / "own"):
        pass


@pytest.mark.slow
def test_a_sweep_that_was_killed_before_it_cleaned_up_does_so_when_it_goes_on(tmp_path):
    words = ("sweep", "transfer_bert", "--rehearse", "--profile", "cpu", "--trials", "2", "--sampler", "random",
             "--output", "out", "--json", *TINY)  # fmt: skip
    done = call(*words)
    assert done.code == 0, done.err
    best = done.value["best"]
    loser = next(each["name"] for each in done.value["experiments"] if each["name"] != best)
    # As after a kill between the result of a trial and what follows from it.
    shutil.copytree(tmp_path / "out" / best / "final_model", tmp_path / "out" / loser / "final_model")
    again = call(*words, "--resume")
    assert again.code == 0, again.err
    assert not (tmp_path / "out" / loser / "final_model").exists()
    assert (tmp_path / "out" / best / "final_model").exists()
    assert json.loads((tmp_path / "out" / "experiment_summary.json").read_text())["best"] == best


@pytest.mark.parametrize("record", [None, "experiment.yaml", "study.yaml"])
def test_an_interruption_can_be_resumed_once_something_is_recorded_and_leaves_nothing_before(
    tmp_path, record
):
    def interrupted():
        with working_folder("name", tmp_path / "run") as path:
            if record is not None:
                (path / record).touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as ended:
        interrupted()
    assert isinstance(ended.value, Interrupted) == (record is not None)
    assert (tmp_path / "run").exists() == (record is not None)


def test_a_ctrl_c_before_anything_is_kept_does_not_advise_to_resume(tmp_path):
    (tmp_path / "interrupting.py").write_text("import os, time\nos.kill(os.getpid(), 15)\ntime.sleep(9)\n")
    (tmp_path / "mine.yaml").write_text("extends: transfer_bert\nfamily: interrupting\n")
    outcome = program("train", "mine.yaml", "--rehearse", "--dry-run", cwd=tmp_path)
    assert (outcome.code, outcome.err) == (130, "dure: interrupted\n")
