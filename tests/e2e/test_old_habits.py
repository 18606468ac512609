"""What old users type and bring: SAMPLES, --debug, --verbose, .env, names of the hub without a network."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from .conftest import TINY, call, program

LOCAL = ("unified-test", "--preset", "tiny", "--dry-run")


def test_samples_says_that_it_limits_rows_and_how_epochs_are_said(monkeypatch):
    monkeypatch.setenv("SAMPLES", "3")
    told = call(*LOCAL)
    assert told.code == 0, told.err
    assert "3 samples: at most 3 training and 3 validation rows" in told.err
    assert "training.epochs=3" in told.err
    assert call(*LOCAL, "training.epochs=3").code == 0


def test_without_samples_nothing_is_said_of_them():
    assert "samples" not in call(*LOCAL).err
    assert "samples" not in call("train-local", "--preset", "tiny", "--dry-run").err


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """A .env as the old guides tell to write it."""
    for name in ("WANDB_API_KEY", "HF_TOKEN", "TEAM"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(
        "WANDB_API_KEY=\"geheim-1234567890\"\n# comment\nexport HF_TOKEN=hf_geheim # mine\nHOME=/nowhere\nnonsense\nTEAM='a#b'\n"
    )
    yield
    for name in ("WANDB_API_KEY", "HF_TOKEN", "TEAM"):
        os.environ.pop(name, None)


def test_dotenv_is_read_and_said_in_one_line_without_its_values(keys):
    home = os.environ["HOME"]
    told = call("list")
    assert told.code == 0
    lines = [line for line in told.err.splitlines() if ".env" in line]
    assert lines == [".env: WANDB_API_KEY, HF_TOKEN, TEAM taken from it"]
    assert os.environ["WANDB_API_KEY"] == "geheim-1234567890"
    assert (os.environ["HF_TOKEN"], os.environ["TEAM"]) == ("hf_geheim", "a#b")
    assert os.environ["HOME"] == home
    assert "geheim" not in told.err + told.out


def test_dotenv_never_overrides_the_environment(keys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "own")
    told = call("list")
    assert os.environ["WANDB_API_KEY"] == "own"
    assert "WANDB_API_KEY" not in told.err


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        pytest.param("--debug", "DEBUG dure.", marks=pytest.mark.slow),
        pytest.param("--verbose", "INFO dure.", marks=pytest.mark.slow),
        pytest.param("", "", marks=pytest.mark.slow),
    ],
)
def test_debug_and_verbose_show_detailed_logs_while_a_run_goes_on(flag, shown, tmp_path):
    command = ("train", "transfer_bert", "--rehearse", "--profile", "cpu", "--output", "run", *TINY)
    told = program(*command, *filter(None, [flag]), cwd=tmp_path)
    assert told.code == 0, told.err
    assert shown in told.err
    assert ("DEBUG dure." in told.err) == (flag == "--debug")
    assert ("INFO dure." in told.err) == bool(flag)
    if flag == "--debug":
        log = (tmp_path / "run/run.log").read_text(encoding="utf-8")
        assert "DEBUG dure.training.recorder: step 4 of 4" in told.err
        assert "DEBUG dure.training.recorder: step 4 of 4" in log
    assert "Traceback" not in told.err


def test_a_model_of_the_hub_without_a_network_is_refused_within_seconds_and_names_the_token(
    tmp_path, monkeypatch
):
    """The hub's address accepts a connection and never answers, as networks do that drop what they do not know."""
    from dure.modeling import hub

    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []
        threading.Thread(target=lambda: held.append(server.accept()), daemon=True).start()
        monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        hub.go_on_without_hub.cache_clear()
        try:
            began = time.monotonic()
            told = call("train", "kobart_baseline", "--profile", "cpu", "model.checkpoint=nobody/never-was")
            assert time.monotonic() - began < 5
        finally:
            hub.go_on_without_hub.cache_clear()
    assert told.code == 2
    assert "'nobody/never-was' is not on this machine" in told.err
    assert "HF_TOKEN" in told.err
    assert not (tmp_path / "outputs").exists()


def test_validation_of_a_gpu_profile_without_the_gpu_skips_what_needs_it():
    told = call("validate", "kobart_baseline", "--rehearse", "--profile", "rtx3090", "--json")
    found = {check["name"]: check for check in told.value["checks"]}
    for name in ("4-bit weights", "precision"):
        assert found[name]["state"] == "skipped", found[name]
        assert found[name]["found"] == "there is no cuda device here"
    assert "Traceback" not in told.err
    assert "not compiled" not in told.err


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--learning_rate", "1e-4"), "training.learning_rate=1e-4, without dashes"),
        (("--training.learning_rate=3e-5",), "training.learning_rate=3e-5, without dashes"),
        (("--num_train_epochs", "3"), "training.epochs=3"),
        (("--per-device-train-batch-size=4",), "training.batch_size=4; it counts the rows"),
        (("--fp16", "--dry-run"), "training.precision=fp16"),
        (("--output_dir", "x"), "leave it out; --output DIR says where a run goes"),
        (("-xyz", "1"), "dure train --help"),
        (("--config",), "leave it out; the file or name of an experiment stands behind the verb"),
        (("lora_target=all",), "'lora.targets=[all-linear]'"),
    ],
)
def test_options_of_other_scripts_are_answered_with_the_setting_that_they_are_here(words, remedy):
    told = call("train", "kobart_baseline", *words)
    assert told.code == 2
    assert f"  try: {remedy}" in told.err
    if "=" in remedy.partition(";")[0]:
        setting = remedy.partition(";")[0].partition(",")[0]
        assert call("train", "kobart_baseline", setting.strip("'"), "--dry-run").code == 0


def test_an_option_that_there_is_stays_one():
    told = call("train", "kobart_baseline", "--epochs")
    assert told.code == 2
    assert "requires an argument" in told.err


def test_the_home_folder_behind_an_equals_sign_is_no_folder_of_the_working_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert call("sample", "--output=~/rows").code == 0
    assert (tmp_path / "home" / "rows" / "train.csv").is_file()
    assert not (tmp_path / "~").exists()
