"""`dure serve` as a user runs it: on Ray Serve, asked over HTTP, killed and ended."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import psutil
import pytest

from dure.config import load_profile
from dure.serving.predictor import Replica
from tests.benchmarks.serving import bodies_of, replicas, serving, with_deaths

from .conftest import call, environment

TEXTS = [
    "#Person1#: 내일 만나요. #Person2#: 좋아요, 세 시에 봐요.",
    "#Person1#: 배송이 늦어요. #Person2#: 죄송합니다.",
]
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    """A server of a summariser in a process of its own: the process, and what it said."""
    errors = (tmp_path_factory.mktemp("serving") / "stderr").open("w+")
    words = ["serve", str(trained[1]), "--port", "0", "--json", "--profile", "cpu", "--time-limit", "60"]
    with subprocess.Popen(
        [sys.executable, "-m", "dure", *words],
        env=environment(DURE_SERVE_TOKEN=TOKEN), stdout=subprocess.PIPE, stderr=errors, text=True,
    ) as process:  # fmt: skip
        lines = []
        while (not lines or lines[-1] != "}\n") and (line := process.stdout.readline()):
            lines.append(line)
        errors.seek(0)
        assert lines, errors.read()
        yield process, json.loads("".join(lines)), errors
        process.kill()


def ask(url, texts):
    return httpx.post(
        f"{url}/predict", json={"texts": texts}, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60
    )


def test_it_predicts_as_predict_does_and_ends_in_order_with_all_that_it_started(server, trained):
    process, said, errors = server
    assert said["model"] == "final_model, the best checkpoint"
    assert httpx.get(f"{said['url']}/health").json()["replicas"] == 1
    assert httpx.post(f"{said['url']}/predict", json={"texts": TEXTS}).status_code == 401
    predicted = call(
        "predict", trained[1], "--text", TEXTS[0], "--text", TEXTS[1], "--profile", "cpu", "--json"
    )
    expected = [
        {key: value for key, value in row.items() if key != "text"} for row in predicted.value["predictions"]
    ]
    assert ask(said["url"], TEXTS).json()["predictions"] == expected
    refused = call("serve", trained[1], "--port", said["url"].rpartition(":")[2], "--profile", "cpu")
    assert refused.code == 2
    assert "another program has the port" in refused.err

    started = psutil.Process(process.pid).children(recursive=True)
    assert not any(TOKEN in str(each.environ()) for each in replicas(process.pid))
    late = []
    asking = threading.Thread(target=lambda: late.append(ask(said["url"], TEXTS * 100)))
    asking.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    asking.join()
    assert len(late[0].json()["predictions"]) == 200
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    errors.seek(0)
    shown = errors.read()
    assert "2 with status 200" in shown
    assert TOKEN not in shown


def test_a_broken_model_is_told_by_its_replica(trained, tmp_path):
    copy = shutil.copytree(trained[1], tmp_path / "copy")
    (copy / "final_model" / "model.safetensors").unlink()
    _, error = Replica([str(copy)], load_profile("cpu"), 8, False, str(tmp_path)).loaded()
    assert error.exit_code == 2
    assert "model.safetensors is missing" in str(error)


def test_what_is_wrong_is_told_before_anything_starts(trained, tmp_path):
    (tmp_path / "token").write_text("short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, told in (
            ([tmp_path], "or an export of dure"),
            ([trained[1], "--port", port], "--port 0 takes any that is free"),
            ([trained[1], "--token-file", "token"], "this is no token"),
            ([trained[1], "--token-file", "nothing"], "it cannot be read"),
            ([trained[1], "--fold", "1"], "the folder of a cross-validation"),
        ):
            refused = call("serve", *words, "--profile", "cpu")
            assert (refused.code, told in refused.err) == (2, True), refused.err


@pytest.mark.slow
def test_a_replica_that_is_killed_loses_no_request_and_comes_back(trained):
    with serving(trained[1], "--replicas", "2") as served:
        load = asyncio.run(with_deaths(served, bodies_of(TEXTS), 8, 2))
        assert set(load.statuses) == {200}


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_command_in_words(trained, tmp_path):
    copy = shutil.copytree(trained[1], tmp_path / "copy")
    (copy / "final_model" / "model.safetensors").unlink()
    refused = call("serve", copy, "--port", "0", "--profile", "cpu")
    assert refused.code == 2
    assert "model.safetensors is missing" in refused.err
