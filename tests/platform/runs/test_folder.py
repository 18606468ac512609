"""What a run's folder holds is read as dure writes it, or refused with the file and what to do."""

from __future__ import annotations

import os
import subprocess

import pytest

from dure.errors import UserError
from dure.files import write_json
from dure.runs import environment
from dure.runs.folder import RunFolder


@pytest.mark.parametrize("key", ["packages", "git", "profile", "memory_mb", "data", "split", "recognised"])
@pytest.mark.parametrize("value", ["text", [], 0.5])
def test_a_broken_record_of_an_environment_is_an_error_of_that_file(key, value, tmp_path):
    run = RunFolder(tmp_path)
    assert run.read_environment() == {}
    write_json(run.environment, {key: value})
    with pytest.raises(UserError, match=f"no record of an environment .'{key}' is") as caught:
        run.read_environment()
    assert caught.value.where == str(run.environment)
    assert "put a copy back, or remove it" in caught.value.hint


def test_a_repository_is_told_whatever_the_names_of_its_files_are(tmp_path):
    for words in (
        ["init", "-q"],
        ["config", "core.quotepath", "false"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *words], cwd=tmp_path, check=True)
    assert environment._git(tmp_path)["clean"]
    (tmp_path / os.fsdecode("한글".encode("cp949"))).touch()  # as unpacking an archive of Windows leaves it
    assert not environment._git(tmp_path)["clean"]
