"""A run or study that was stopped on one machine goes on from storage on another, by its name alone."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time

import psutil
import pytest

from dure.storage.remote import Storage
from tests.e2e.conftest import TINY, call, environment, program


@pytest.mark.slow
def test_resume_in_an_empty_folder_brings_the_run_from_storage(tmp_path, monkeypatch):
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        f"extends: cpu\nname: mine\nstorage: {{url: 'file://{tmp_path}/far'}}\n", encoding="utf-8"
    )
    command = (
        "train",
        "kobart_baseline",
        "--rehearse",
        "--json",
        "--profile",
        profile,
        "--output",
        "NAME",
        *TINY,
    )
    for machine in ("a", "b"):
        (tmp_path / machine).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    whole = call(*command)
    assert whole.code == 0, whole.err
    assert (tmp_path / "far" / "NAME" / "final_model" / "manifest.json").is_file()
    shutil.rmtree(tmp_path / "a" / "NAME")
    taken = call(
        *command
    )  # the folder is empty here, and what is in storage shall not be mixed with another run
    assert taken.code == 2
    assert "--resume" in taken.err
    # As if the machine had been lost before the end.
    (tmp_path / "far" / "NAME" / "result.json").unlink()
    monkeypatch.chdir(tmp_path / "b")
    resumed = call(*command, "--resume")
    assert resumed.code == 0, resumed.err
    assert "comes from file://" in resumed.err
    same = ("eval_rouge_sum", "eval_loss", "steps", "best_step")
    assert {key: resumed.value["metrics"][key] for key in same} == {
        key: whole.value["metrics"][key] for key in same
    }
    assert (tmp_path / "b" / "NAME" / "final_model" / "manifest.json").is_file()
    nothing = call(*command[: -len(TINY) - 1], "OTHER", *TINY, "--resume")
    assert nothing.code == 2
    assert "nothing to resume" in nothing.err


_SMALL = (
    "rehearsal.hidden_size=32",
    "rehearsal.num_layers=1",
    "rehearsal.vocab_size=400",
    "rehearsal.max_train_rows=96",
    "rehearsal.max_dev_rows=20",
    "rehearsal.max_steps=40",
    "rehearsal.num_evaluations=10",
    "training.batch_size=4",
    "training.best_metric=eval_loss",
    "wandb.enabled=false",
)
_STUDIES = {
    "sweep": (
        ("sweep", "transfer_bert", "--rehearse", "--sampler", "grid", "--trials", "3", *_SMALL),
        "trial_001/checkpoint-*",
        "experiment_summary.txt",
        lambda value: (value["best_values"], [each["metrics"]["eval_loss"] for each in value["experiments"]]),
    ),
    "progressive": (
        (
            "progressive",
            "transfer_bert",
            "--rehearse",
            "--ratios",
            "0.2,0.6,1.0",
            "--epochs-per-stage",
            "3",
            *_SMALL,
        ),
        "stage_2_*/checkpoints/checkpoint-*",
        "progressive_training_summary.txt",
        lambda value: [stage["score"] for stage in value["stages"]],
    ),
    "crossval": (
        ("crossval", "transfer_bert", "--rehearse", "--folds", "3", *_SMALL),
        "fold_2/checkpoint-*",
        "crossval_summary.txt",
        lambda value: [each["metrics"]["test_loss"] for each in value["trials"]],
    ),
    "unified": (
        ("unified-test", "--preset", "tiny", "--samples", "32", "--epochs", "4"),
        "checkpoints_final/checkpoint-*",
        "unified_results.json",
        lambda value: (
            value["learning_rate"],
            value["result"]["metrics"]["eval_loss"],
            value["crossover"]["kept"],
        ),
    ),
}
"""By kind: the command, a checkpoint in storage at which the machine is lost, the last file, and what must be equal."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", _STUDIES)
def test_a_study_whose_machine_is_lost_goes_on_from_storage_and_ends_the_same(kind, tmp_path):
    words, checkpoint, last, figures = _STUDIES[kind]
    (tmp_path / "far.yaml").write_text(
        f"name: far\ndevice: cpu\nmax_concurrent_trials: 1\nstorage: {{url: 'file://{tmp_path}/far'}}\n",
        encoding="utf-8",
    )
    (tmp_path / "near.yaml").write_text(
        "name: near\ndevice: cpu\nmax_concurrent_trials: 1\n", encoding="utf-8"
    )
    for machine in ("whole", "a", "b"):
        (tmp_path / machine).mkdir()
    whole = program(
        *words, "--json", "--profile", tmp_path / "near.yaml", "--output", "NAME", cwd=tmp_path / "whole"
    )
    assert whole.code == 0, whole.err

    command = (*words, "--json", "--profile", tmp_path / "far.yaml")
    with (tmp_path / "a.log").open("w") as log:
        driver = psutil.Popen(
            [sys.executable, "-m", "dure", *map(str, (*command, "--output", "NAME"))],
            cwd=tmp_path / "a", env=environment(), stdout=log, stderr=log,
        )  # fmt: skip
        copy = tmp_path / "far" / "NAME"
        while not list(copy.glob(f"{checkpoint}/trainer_state.json")):
            assert driver.poll() is None, (tmp_path / "a.log").read_text()
            time.sleep(0.005)
        everything = [driver, *driver.children(recursive=True)]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        driver.wait()
    psutil.wait_procs(everything, timeout=60)
    shutil.rmtree(tmp_path / "a")
    assert not (copy / last).exists()
    resume = ("--resume", "NAME") if kind == "unified" else ("--resume", "--output", "NAME")
    went_on = program(*command, *resume, cwd=tmp_path / "b")
    assert went_on.code == 0, went_on.err
    assert figures(went_on.value) == figures(whole.value)

    here = {
        path.relative_to(tmp_path / "b" / "NAME").as_posix(): path.stat().st_size
        for path in (tmp_path / "b" / "NAME").rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(tmp_path).parts)
    }
    assert here == Storage(f"file://{copy}").sizes()
