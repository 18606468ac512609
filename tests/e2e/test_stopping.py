"""SIGTERM: a checkpoint is written, everything ends in order, and `--resume` ends where an undisturbed run does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from functools import partial

import psutil
import pytest
from safetensors.torch import load_file

from dure.cli.main import _interrupted
from dure.files import read_json_lines
from dure.runs.checkpoints import last_checkpoint
from dure.signals import STOP_FILE

from .conftest import TINY, call, environment, program

MORE = (
    *TINY,
    "generation.num_beams=1",
    "training.early_stopping_patience=100",
    "training.gradient_accumulation_steps=1",
    "training.batch_size=4",
    "rehearsal.max_train_rows=200",
    "rehearsal.num_evaluations=3",
    "training.log_every=7",
)


def numbers(folder):
    """Every number of the record that is not a time."""
    return [
        {
            key: value
            for key, value in record.items()
            if not key.endswith(("seconds", "_runtime", "_per_second"))
        }
        for record in read_json_lines(folder / "metrics.jsonl")
    ]


def weights_of(folder):
    return {
        name: value.tolist() for name, value in load_file(folder / "final_model/model.safetensors").items()
    }


def stop_when(condition, arguments, cwd, *, number=signal.SIGTERM, **more):
    """Run the program, send a signal once the condition holds, and return its code, stderr and leftover processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dure", *map(str, arguments)],
        cwd=cwd, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    started = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert out == ""
    _, alive = psutil.wait_procs(started, timeout=30)
    return process.returncode, err, alive


def reached(folder, step):
    return any(record["step"] >= step for record in read_json_lines(folder / "metrics.jsonl"))


@pytest.mark.slow
def test_a_run_that_gets_sigterm_between_validations_goes_on_exactly(tmp_path):
    arguments = ["train", "kobart_baseline", "--rehearse", *MORE, "rehearsal.max_steps=90"]
    cut = tmp_path / "cut"
    code, err, alive = stop_when(partial(reached, cut, 7), [*arguments, "--output", cut], tmp_path)
    assert code == 130, err
    assert alive == []
    assert "stopping: a checkpoint is written first" in err
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    result = json.loads((cut / "result.json").read_text(encoding="utf-8"))
    assert result["state"] == "interrupted"
    assert last_checkpoint(cut).name == f"checkpoint-{result['metrics']['steps']}"
    assert result["metrics"]["steps"] % 30
    assert not (cut / STOP_FILE).exists()
    assert call(*arguments, "--output", cut, "--resume").code == 0
    assert call(*arguments, "--output", tmp_path / "whole").code == 0
    assert numbers(cut) == numbers(tmp_path / "whole")
    assert weights_of(cut) == weights_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_terminal_that_is_closed_keeps_what_there_is(tmp_path):
    arguments = ["train", "transfer_bert", "--rehearse", "--output", "cut", *MORE, "rehearsal.max_steps=3000"]
    ours, theirs = pty.openpty()

    def at_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    command = shlex.join([sys.executable, "-m", "dure", *arguments])
    shell = subprocess.Popen(
        ["sh", "-c", f"{command}; true"], cwd=tmp_path, env=environment(),
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=at_terminal,
    )  # fmt: skip
    os.close(theirs)
    deadline = time.monotonic() + 300
    while not reached(tmp_path / "cut", 7) and shell.poll() is None and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            os.read(ours, 65536)
    started = psutil.Process(shell.pid).children(recursive=True)
    os.close(ours)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    result = json.loads((tmp_path / "cut/result.json").read_text(encoding="utf-8"))
    assert result["state"] == "interrupted"
    assert last_checkpoint(tmp_path / "cut").name == f"checkpoint-{result['metrics']['steps']}"


PROFILE = "name: two\ndevice: cpu\nmax_concurrent_trials: 2\n"
ONE = "name: one\ndevice: cpu\nmax_concurrent_trials: 1\n"
STUDIES = {
    "batch": (
        ["batch", "seven", "--only", "2,4,5", "--rehearse", *MORE, "rehearsal.max_steps=60"],
        ["kobart_baseline", "eenzeenee_t5"], "experiment_summary.json", PROFILE,
    ),
    "sweep": (
        # A grid here; test_sweep_resume.py has a sampler that draws.
        ["sweep", "transfer_bert", "--rehearse", "--sampler", "grid", "--trials", "3", *MORE, "rehearsal.max_steps=60"],
        ["trial_001"], "experiment_summary.json", ONE,
    ),
    "progressive": (
        ["progressive", "transfer_bert", "--rehearse", "--ratios", "0.3,0.6,1.0", "--epochs-per-stage", "8",
         # The third runs while the first two wait at 30 %: nothing may be decided about them.
         "--candidates", "training.learning_rate=1e-4,3e-4,1e-3", "--eta", "2", "--on-baseline", "warn", *MORE],
        ["candidate_3/stage_1_30pct"], "progressive_training_results.json", PROFILE,
    ),
    "crossval": (
        ["crossval", "transfer_bert", "--rehearse", "--folds", "3", *MORE, "rehearsal.max_steps=60"],
        ["fold_2"], "crossval_results.json", ONE,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_that_gets_sigterm_ends_in_order_and_goes_on_exactly(kind, tmp_path):
    arguments, places, summary, profile = STUDIES[kind]
    (tmp_path / "profile.yaml").write_text(profile, encoding="utf-8")
    arguments = [*arguments, "--profile", tmp_path / "profile.yaml"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"

    def is_time():
        return all(any(reached(found, 7) for found in cut.glob(place)) for place in places)

    code, err, alive = stop_when(is_time, [*arguments, "--output", cut], tmp_path)
    assert code == 130, err
    assert alive == []
    assert "Traceback" not in err
    before = json.loads((cut / summary).read_text(encoding="utf-8"))
    assert before["state"] == "interrupted"
    states = [each["state"] for each in before.get("trials", before.get("experiments"))]
    assert "interrupted" in states
    assert not {"failed", "stopped"} & set(states)
    steps = [
        json.loads(path.read_text(encoding="utf-8"))["metrics"].get("steps", 0)
        for path in cut.rglob("result.json")
        if json.loads(path.read_text(encoding="utf-8"))["state"] == "interrupted"
    ]
    assert max(steps) > 0, err
    resumed = program(*arguments, "--output", cut, "--resume", "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    straight = program(*arguments, "--output", whole, "--json", cwd=tmp_path)
    assert straight.code == 0, straight.err
    made = sorted(path.parent.relative_to(whole) for path in whole.rglob("metrics.jsonl"))
    assert made == sorted(path.parent.relative_to(cut) for path in cut.rglob("metrics.jsonl"))
    for place in made:
        assert numbers(cut / place) == numbers(whole / place), place
        assert (cut / place / "final_model").is_dir() == (whole / place / "final_model").is_dir()
    for key in ("best", "best_values", "winner", "stopped", "dropped"):
        found, expected = resumed.value.get(key), straight.value.get(key)
        # A sweep names the file that the winner is in, within its own folder.
        assert str(found).replace(str(cut), str(whole)) == str(expected)


@pytest.mark.parametrize(("verb", "option"), [("batch", "--resume"), ("unified-test", "--resume FOLDER")])
def test_what_is_advised_after_ctrl_c_is_how_the_verb_takes_it(verb, option, capsys):
    with pytest.raises(SystemExit):
        _interrupted([verb, "--json"], is_kept=True)
    assert f"try: {option} continues it" in capsys.readouterr().err
