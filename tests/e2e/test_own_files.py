"""What a user has where a verb is told to write stays as it is, for every verb that has ``--output``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer

from dure.cli.app import app, load_verbs

from .conftest import TINY, call

TRAINS = ("transfer_bert", "--rehearse", "--profile", "cpu", *TINY)
TINY_UNIFIED = ("--preset", "tiny", "--samples", "8")
FOLDERS = {
    "batch": ("seven", "--only", "4", *TRAINS[1:]),
    "crossval": (*TRAINS, "--folds", "2"),
    "progressive": TRAINS,
    "run": TRAINS,
    "sweep": (*TRAINS, "--trials", "1"),
    "train": TRAINS,
    "train-local": TINY_UNIFIED,
    "unified-test": TINY_UNIFIED,
    "unified-train": TINY_UNIFIED,
    "verify-resume": TRAINS,
}
"""Verb → words, of those that work in a folder of their own."""
FILES = {"compare", "convert", "predict", "report", "sample"}
"""Those that write files, and replace none without ``--force``."""
ALIKE = {"unified-test-v1"}
"""As unified-test, of models too large for the disk of a test."""
LOOKS = {"validate"}
"""Says only what a run would find there."""


def test_every_verb_that_writes_is_here():
    load_verbs()
    commands = typer.main.get_command(app).commands
    writes = {
        name for name, each in commands.items() if any("--output" in option.opts for option in each.params)
    }
    assert writes == {*FOLDERS, *FILES, *ALIKE, *LOOKS}
    forced = {
        name for name, each in commands.items() if any("--force" in option.opts for option in each.params)
    }
    assert forced == {*FILES, "export"}  # whose --to has tests of its own


@pytest.mark.parametrize("verb", FOLDERS)
def test_a_folder_with_files_of_the_user_is_refused(verb, tmp_path):
    mine = tmp_path / "out" / "experiment.csv"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    refused = call(verb, *FOLDERS[verb], "--output", "out")
    assert refused.code == 2, refused.err
    assert "not empty" in refused.err
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]
    assert mine.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("verb", sorted(FILES))
def test_a_file_of_the_user_is_replaced_by_force_alone(verb, tmp_path, trained, corpus):
    Path("old.yaml").write_text("model_name: t5-small\nlearning_rate: 1e-4\n", encoding="utf-8")
    other = shutil.copytree(trained[1], tmp_path / "other")
    words, out, file = {
        "compare": ((trained[1], other), "new", "new/comparison.json"),
        "convert": (("old.yaml",), "new.yaml", "new.yaml"),
        "predict": ((trained[1], corpus / "test.csv"), "new.csv", "new.csv"),
        "report": ((trained[1],), "new.html", "new.html"),
        "sample": ((), "new", "new/train.csv"),
    }[verb]
    mine = tmp_path / file
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    refused = call(verb, *words, "--output", out)
    assert refused.code == 2, refused.err
    assert "--force" in refused.err
    assert mine.read_text(encoding="utf-8") == "mine"
    done = call(verb, *words, "--output", out, "--force")
    assert done.code == 0, done.err
    assert mine.read_text(encoding="utf-8") != "mine"
