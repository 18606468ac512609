"""A run that was stopped on one machine goes on from storage on another, by its name alone."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.conftest import TINY, call


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
