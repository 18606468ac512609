"""The machine as it is: a long TMPDIR, keys in the environment, modules of the user that are named like Python's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from .conftest import TINY, environment

KEYS = {"AWS_ACCESS_KEY_ID": "leaky-id-0123", "AWS_SECRET_ACCESS_KEY": "leaky-key-4567"}


@pytest.fixture
def short():
    """A folder for Ray of this test alone."""
    folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def leaks(folder):
    found = set()
    for path in folder.rglob("*"):
        try:
            if path.is_file() and b"leaky-" in path.read_bytes():
                found.add(path.name)
        except OSError:
            continue  # Ray has removed it
    return found


@pytest.mark.slow
def test_a_study_among_a_users_own_modules_leaks_no_key_and_leaves_nothing_behind(short, tmp_path):
    for name in ("random", "utils", "queue", "types"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a module of the user')\n", encoding="utf-8")
    long = tmp_path / ("t" * 80)
    long.mkdir()
    running = subprocess.Popen(
        [str(Path(sys.executable).parent / "dure"), "batch", "seven", "--only", "5", "--rehearse", "-o", "study", *TINY],
        cwd=tmp_path, env=environment(**KEYS, TMPDIR=str(long), RAY_TMPDIR=str(short)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    found, over = set(), threading.Event()

    def look():
        while not over.wait(0.3):
            found.update(leaks(short))

    looking = threading.Thread(target=look)
    looking.start()
    out, err = running.communicate(timeout=600)
    over.set()
    looking.join()
    assert running.returncode == 0, err
    assert "kobart_baseline" in out
    assert found == set()
    assert leaks(tmp_path / "study") == set()
    assert list(short.iterdir()) == []
    assert [path.name for path in long.iterdir() if "pymp" in path.name or "wandb" in path.name] == []
