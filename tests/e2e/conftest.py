"""Running the program: in this process where it is cheap, as a process of its own where that is the point."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TINY = (
    "rehearsal.max_steps=4",
    "rehearsal.num_evaluations=2",
    "rehearsal.hidden_size=32",
    "rehearsal.num_layers=1",
    "rehearsal.vocab_size=400",
    "rehearsal.max_train_rows=40",
    "rehearsal.max_dev_rows=4",
    "rehearsal.max_decoder_len=16",
    "generation.num_beams=2",
    "wandb.enabled=false",
)
"""Overrides that make a rehearsal take seconds."""


@dataclass(frozen=True)
class Outcome:
    """What a call of the program gave."""

    code: int
    out: str
    err: str

    @property
    def value(self):
        """The one JSON object on stdout."""
        return json.loads(self.out)


def call(*arguments: object) -> Outcome:
    """Run the command line in this process."""
    from dure.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return Outcome(int(end.value.code or 0), out.getvalue(), err.getvalue())


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that runs this tree, from whatever folder."""
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("platform", "."))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def program(*arguments: object, cwd: Path, timeout: float = 300, **more: str) -> Outcome:
    """Run the command line as a process of its own, with its output in pipes."""
    ended = subprocess.run(
        [sys.executable, "-m", "dure", *map(str, arguments)],
        cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    return Outcome(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run everything in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run, made once: the outcome of its command and its folder."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.chdir(folder.parent)
        outcome = call("train", "kobart_baseline", "--rehearse", "--json", "--output", "run", *TINY)
    return outcome, folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The embedded corpus as ``dure sample`` writes it."""
    folder = tmp_path_factory.mktemp("corpus")
    assert call("sample", "--output", folder).code == 0
    return folder
