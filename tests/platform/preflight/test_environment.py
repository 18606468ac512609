"""What is wrong with a machine is said by its own check, and does not hide the rest."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import types
from collections import namedtuple

import psutil
import pytest

from dure.runtime import guard

REHEARSAL = ("transfer_bert", ["rehearsal.max_train_rows=40"])


@pytest.fixture
def without(monkeypatch):
    """Let packages be not installed."""
    real = importlib.metadata.version

    def remove(*names):
        def version(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return remove


def test_a_sound_machine_has_no_failure(failed):
    assert failed() == {}


def test_a_missing_package_is_named_and_what_needs_it_is_skipped(without, look):
    without("torch")
    checks = look(*REHEARSAL, rehearse=True)
    assert "torch is missing" in checks["packages"].found
    assert "torch" in checks["imports"].found
    assert checks["device"].state == "skipped"
    assert checks["python"].state == checks["experiment"].state == "ok"


def test_a_package_that_is_installed_but_does_not_load_is_named(monkeypatch, failed):
    monkeypatch.setitem(sys.modules, "kiwipiepy", None)
    checks = failed()
    assert list(checks) == ["imports"]
    assert "kiwipiepy" in checks["imports"].found


def test_another_version_than_declared_is_told_with_both(monkeypatch, failed):
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "4.1.0" if name == "transformers" else real(name)
    )
    checks = failed()
    assert list(checks) == ["packages"]
    assert "transformers 4.1.0 is not" in checks["packages"].found


def test_ray_without_its_dashboard_is_told_with_what_to_install(without, failed):
    without("aiohttp_cors", "colorful")
    checks = failed()
    assert list(checks) == ["ray dashboard"]
    assert "aiohttp_cors, colorful missing" in checks["ray dashboard"].found
    assert "ray[default" in checks["ray dashboard"].remedy


def test_an_old_python_is_told(monkeypatch, failed):
    version = namedtuple("version", "major minor micro")
    monkeypatch.setattr("dure.preflight.environment.sys", types.SimpleNamespace(
        version_info=version(3, 10, 1), executable="python3.10"
    ))  # fmt: skip
    assert "Python 3.11 or newer" in failed()["python"].found


def test_a_device_that_is_not_here_fails_and_its_number_format_is_not_judged(look):
    checks = look(profile="rtx3090")
    if checks["device"].state == "ok":
        pytest.skip("this machine has a CUDA device")
    assert "no cuda device" in checks["device"].found
    assert checks["precision"].state == "skipped"


def test_a_number_format_that_the_device_has_not_fails(failed):
    checks = failed("transfer_bert", ["training.precision=fp16"])
    assert "'fp16' does not train on a CPU" in checks["precision"].found


def test_bitsandbytes_is_needed_only_by_experiments_that_quantise(monkeypatch, look):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert "4-bit weights" not in look(*REHEARSAL)
    assert look("mt5_xlsum_ultimate")["4-bit weights"].state == "failed"


def test_a_cache_that_cannot_be_written_to_fails_by_name(monkeypatch, tmp_path, failed):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DURE_CACHE", str(tmp_path / "file" / "cache"))
    assert "DURE_CACHE" in failed()["cache folder"].found


def test_an_output_below_a_file_fails(tmp_path, failed):
    (tmp_path / "file").write_text("")
    assert "this is a file" in failed(output=tmp_path / "file" / "run")["output folder"].found


def test_the_output_folder_is_the_one_that_a_run_would_take(tmp_path, monkeypatch, look):
    monkeypatch.setenv("DURE_OUTPUTS", str(tmp_path / "elsewhere"))
    assert look()["output folder"].found.startswith(f"{tmp_path / 'elsewhere'} can be written to")


def test_too_little_memory_and_disk_are_foretold_with_what_needs_them(monkeypatch, failed):
    usage = namedtuple("usage", "total used free")
    memory = psutil.virtual_memory()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**30, 0, 2**30))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=2**30))
    plain = ["training.ema=null", "training.keep_epochs=null", "data.max_train_rows=40"]
    checks = failed("red_heart_730m", plain)
    assert list(checks) == ["memory", "disk"]
    # 729M parameters: 4 bytes each for weights and gradients, 8 for Adam's moments, and the activations.
    least = float(checks["memory"].found.partition(" GiB to ")[0])
    assert 10.9 * 0.95 < least < 20
    assert "2.72 GiB of gradients" in checks["memory"].found
    assert "of activations" in checks["memory"].found
    assert "29.2 GB of 1.1 GB" in checks["disk"].found


@pytest.mark.skipif(sys.platform != "linux", reason="reads the environment of processes")
def test_processes_of_a_killed_cluster_are_a_failure_and_those_of_a_living_one_are_not():
    mark = "validate-test"
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    left = subprocess.Popen(sleeper, env={**os.environ, guard.MARK: mark})
    watching = None
    try:
        (cluster,) = (each for each in guard.clusters_here() if left.pid in each.pids)
        assert not cluster.is_guarded
        watching = guard.Guard(mark)
        (cluster,) = (each for each in guard.clusters_here() if left.pid in each.pids)
        assert cluster.is_guarded
    finally:
        left.kill()
        left.wait()
        if watching is not None:
            watching.dismiss()
