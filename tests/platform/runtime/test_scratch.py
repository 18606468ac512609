"""Temporary files of a command: short of path, and gone with it, whatever ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dure.errors import UserError
from dure.runtime import scratch
from dure.runtime.cluster import keep_token_private

HOLD = """
import multiprocessing.util, tempfile
from dure.runtime.scratch import temporary_files
with temporary_files() as folder:
    multiprocessing.util.get_temp_dir()  # pymp-…
    tempfile.mkdtemp(suffix="wandb")
    tempfile.mkdtemp(suffix="wandb-media")
    print(folder, flush=True)
    input()
"""
"""A command as a study is: what Python's processes and a tracker unpack lies in its folder."""


@pytest.fixture
def base(monkeypatch):
    """A short folder that nobody else's leftovers lie in."""
    folder = tempfile.mkdtemp(prefix="s", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setattr(scratch, "_own", None)
    yield Path(folder)
    subprocess.run(["rm", "-rf", folder], check=True)


def holder():
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    return process, Path(process.stdout.readline().strip())


def test_a_command_removes_its_folder_and_the_next_one_that_of_a_killed_one_only(base):
    living, used = holder()
    killed, left = holder()
    (base / "dure-mine").mkdir()  # of that name, and not dure's
    (base / "dure-mine" / "lock").touch()
    assert used.parent == left.parent == base
    killed.kill()
    killed.wait()
    kept = sorted(path.name for path in left.iterdir())
    assert [name[:5] for name in kept if name.startswith("pymp-")] == ["pymp-"]
    assert len([name for name in kept if name.startswith("tmp") and "wandb" in name]) == 2
    scratch.clear_leftovers()
    assert not left.exists()
    assert used.is_dir()
    living.communicate("\n", timeout=60)
    assert sorted(path.name for path in base.iterdir()) == ["dure-mine"]


def test_temporary_files_lie_there_only_meanwhile(base):
    before = tempfile.gettempdir()
    with scratch.temporary_files() as folder:
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["TMPDIR"] == str(folder)
    assert tempfile.gettempdir() == before
    assert os.environ.get("TMPDIR") != str(folder)


def test_a_long_folder_of_the_system_is_not_taken_and_a_long_one_that_is_asked_for_is_named(
    monkeypatch, tmp_path
):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "_own", None)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert scratch.scratch_folder().parent == Path("/tmp")
    monkeypatch.setattr(scratch, "_own", None)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(UserError, match="at most 22 bytes") as error:
        scratch.scratch_folder()
    assert error.value.where == "RAY_TMPDIR"


@pytest.mark.parametrize("is_there", [True, False], ids=["written by Ray", "not there"])
def test_the_token_of_the_clusters_is_for_its_owner_alone(is_there, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / ".ray" / "auth_token"
    if is_there:
        file.parent.mkdir()
        file.write_text("token")
        file.chmod(0o644)
    keep_token_private()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == "token" or (not is_there and len(file.read_text()) == 64)


def test_no_token_is_made_where_none_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    keep_token_private()
    assert list(tmp_path.iterdir()) == []
