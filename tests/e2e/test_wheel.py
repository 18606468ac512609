"""A built wheel works without the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from .conftest import REPOSITORY, TINY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def dure(wheel, folder):
    """Run the installed program from a folder of its own.

    The environment holds the wheel alone; what it depends on comes from this one's packages through a path
    line, which does not follow an editable installation there.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)],
        check=True,
    )
    packages = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python.parent / "dure"), *arguments],
            cwd=folder, env={**environment, "OMP_NUM_THREADS": "1", "DURE_CACHE": str(folder / "cache")},
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    return run


def test_the_wheel_holds_engine_families_experiments_and_profiles_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"dure"}
    assert not [name for name in names if "__pycache__" in name]
    for wing, suffix in (("search_spaces", ".yaml"), ("cluster", ".yaml"), ("trainables", ".py")):
        shipped = {name for name in names if name.startswith(f"dure/{wing}/") and name.endswith(suffix)}
        here = {f"dure/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / wing).rglob(f"*{suffix}")}
        assert shipped == here


OWN_FAMILY = """
from trainables.transfer import Transfer


class Mine(Transfer):
    pass
"""


def test_folders_of_the_user_hide_nothing_of_dure_and_are_hidden_by_nothing(dure, folder):
    for name, text in {
        "cluster/profiles/lab.yaml": "name: lab\ndevice: cpu\ndescription: ours\n",
        "cluster/__init__.py": "raise RuntimeError('of the user')",
        "search_spaces/experiments/mine.yaml": "extends: transfer_bert\nfamily: trainables.mine\nexperiment: {name: mine}\n",
        "trainables/__init__.py": "",
        "trainables/mine.py": OWN_FAMILY,
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    listed = json.loads(dure("list", "--json").stdout)
    assert {"lab", "rtx3090"} <= set(listed["profiles"])
    assert {"mine", "transfer_bert"} <= set(listed["experiments"])
    done = dure("train", "mine", "--rehearse", "--json", "--profile", "lab", "--verbose", *TINY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "completed"
    assert "INFO dure." in done.stderr
    assert "DEBUG dure." not in done.stderr
    (folder / "trainables" / "transfer.py").write_text(OWN_FAMILY, encoding="utf-8")
    refused = dure("train", "transfer_bert", "--dry-run")
    assert refused.returncode == 2
    assert "rename" in refused.stderr
    (folder / "trainables" / "transfer.py").unlink()


def test_the_installed_program_lists_what_was_shipped(dure):
    listed = dure("list", "--json")
    assert listed.returncode == 0, listed.stderr
    names = {path.stem for path in (REPOSITORY / "search_spaces" / "experiments").glob("[!_]*.yaml")}
    assert set(json.loads(listed.stdout)["experiments"]) >= names


@pytest.mark.slow
def test_the_installed_program_rehearses(dure):
    done = dure("train", "eenzeenee_t5", "--rehearse", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "completed"
