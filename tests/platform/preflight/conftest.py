"""Short runs whose folders are looked at, and broken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dure.api import READERS
from dure.preflight.checks import Check
from dure.preflight.validating import validate
from dure.training.run import RunRequest, run


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Look at everything from an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def runs(tiny, cpu, tmp_path_factory):
    """Finished runs by kind, made once."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {
        "whole": tiny("t5", "full", max_steps=2, eval_every=2),
        "adapters": tiny("bert", "lora", max_steps=2, eval_every=2, ema=0.9),
        "packed": tiny("bart", "qlora", max_steps=2, eval_every=2),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for name, experiment in kinds.items():
            run(RunRequest(experiment, cpu, folder / name))
    return {name: folder / name for name in kinds}


@pytest.fixture
def a_run(runs, tmp_path) -> Callable[[str], Path]:
    """Copy a run, to be broken: ``a_run("whole")``."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(runs[kind], tmp_path / kind))

    return copy


@pytest.fixture
def look():
    """Validate and return the checks by name: ``look("kobart_baseline", rehearse=True)["imports"]``."""

    def checks(*arguments, **options) -> dict[str, Check]:
        options.setdefault("profile", "cpu")
        found = validate(*arguments, **options, readers=READERS, notify=lambda message: None)
        named = {check.name: check for check in found}
        assert len(named) == len(found), "names are distinct"
        return named

    return checks


@pytest.fixture
def failed(look):
    """Validate and return the failed checks by name."""

    def checks(*arguments, **options) -> dict[str, Check]:
        named = look(*arguments, **options)
        return {name: check for name, check in named.items() if check.state == "failed"}

    return checks
