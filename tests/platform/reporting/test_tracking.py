from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from wandb.proto.wandb_internal_pb2 import Record

from dure.config.schema import Experiment
from dure.reporting.tracker import trackers_for
from dure.reporting.wandb_tracker import WandbTracker

PLATFORM = Path(__file__).resolve().parents[3] / "platform"

# Tracks the runs of argv[2:], one after another, in one process; what the tracker tells goes to stdout.
DRIVER = """
import os, pickle, sys, time, urllib.request
from pathlib import Path
import psutil
from dure.events import RunProgress, RunStart
from dure.runs.folder import RunResult

tracker_bytes, kill_service = Path(sys.argv[1]).read_bytes(), "--kill" in sys.argv
for folder in [Path(name) for name in sys.argv[2:] if not name.startswith("--")]:
    tracker = pickle.loads(tracker_bytes)
    steps = range(1, 4)
    if (folder / "wandb_id").exists():
        steps = range(3, 6)
    experiment = {"experiment": {"name": folder.name}, "training": {"learning_rate": 3e-5, "epochs": 2}}
    tracker.started(RunStart(folder.name, folder, experiment, ("kobart", "x" * 80, "kobart"), "seven", 5), print)
    tracker.progressed(RunProgress("eval", 0, 5, 0.0, 0.0, {"untrained_rouge1": 0.125}))
    for step in steps:
        if kill_service and step == 2:
            kill_service = False
            for child in psutil.Process().children(recursive=True):
                child.kill()
        if "--lose" in sys.argv and step == 3:
            time.sleep(2)  # until the server has got the first steps
            urllib.request.urlopen(os.environ["WANDB_BASE_URL"] + "/lose").read()
        tracker.progressed(RunProgress("train", step, 5, step / 2, 0.1, {"loss": 1.0 / step}))
    tracker.progressed(RunProgress("eval", step, 5, step / 2, 0.2, {"eval_rouge1": 0.25 * step, "eval_nan": float("nan")}))
    tracker.finished(RunResult(folder.name, "completed", {"eval_rouge1": 0.75, "rouge_tokenizer": "morpheme"}, seconds=3.0))
print("the run ended")
"""


@pytest.fixture
def experiment() -> Experiment:
    return Experiment.model_validate(
        {
            "family": "trainables.summarization",
            "experiment": {"name": "a"},
            "model": {"checkpoint": "c"},
            "wandb": {"enabled": True, "project": "dure-tests", "entity": "team"},
        }
    )


@pytest.fixture
def tracker_file(experiment: Experiment, tmp_path: Path) -> Path:
    """The tracker as it travels to the worker: pickled, what it tells goes to stdout."""
    file = tmp_path / "tracker.pickle"
    file.write_bytes(pickle.dumps(trackers_for(experiment)[0]))
    return file


def start_tracking(
    tracker_file: Path, *arguments: Path | str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    elsewhere = tracker_file.parent / "cwd"
    elsewhere.mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tracker_file), *map(str, arguments)],
        cwd=elsewhere,
        env={
            **clean,
            "HOME": str(tracker_file.parent / "home"),
            "PYTHONPATH": str(PLATFORM),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def track(tracker_file: Path, *arguments: Path | str, environment: dict[str, str] | None = None) -> list[str]:
    """Return the lines that the process printed, the last being that the run ended."""
    process = start_tracking(tracker_file, *arguments, environment=environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    lines = output.splitlines()
    assert lines[-1] == "the run ended"
    return lines[:-1]


def records(path: Path) -> list[dict[str, Any]]:
    """Read a ``.wandb`` file: a 7-byte head, then LevelDB's log format, 32 KiB blocks of framed protobufs."""
    content, found, part = path.read_bytes(), [], b""
    at, block = 7, 32768
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(MessageToDict(Record.FromString(part), preserving_proto_field_name=True))
            part = b""
    return found


def offline_runs(run: Path) -> list[list[dict[str, Any]]]:
    return [records(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]


def head(run: list[dict[str, Any]]) -> dict[str, Any]:
    return next(record["run"] for record in run if "run" in record)


def history(run: list[dict[str, Any]], key: str) -> list[tuple[int, Any]]:
    rows = []
    for record in run:
        if "history" in record:
            row = {
                item.get("key") or ".".join(item["nested_key"]): json.loads(item["value_json"])
                for item in record["history"]["item"]
            }
            if key in row:
                rows.append((row["step"], row[key]))
    return rows


def test_a_run_without_a_key_is_kept_whole_in_its_own_folder_and_said_in_one_line(
    tracker_file: Path, tmp_path: Path
) -> None:
    told = track(tracker_file, tmp_path / "one")

    assert len(told) == 1
    assert "no API key" in told[0]
    assert "wandb sync" in told[0]
    (run,) = offline_runs(tmp_path / "one")
    assert head(run)["display_name"] == "one"
    assert head(run)["run_group"] == "seven"
    assert head(run)["project"] == "dure-tests"
    assert head(run)["entity"] == "team"
    assert head(run)["tags"] == ["kobart", "x" * 64]
    config = {item["key"]: json.loads(item["value_json"]) for item in head(run)["config"]["update"]}
    assert config["training"] == {"learning_rate": 3e-5, "epochs": 2}
    assert history(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert history(run, "eval/rouge1") == [(0, 0.125), (3, 0.75)]
    text = json.dumps(run)
    assert "result/rouge_tokenizer" in text
    assert any("exit" in record for record in run)
    assert any("stats" in record or "environment" in record for record in run)
    assert not list((tmp_path / "cwd").iterdir())


def test_runs_one_after_another_in_one_process_do_not_mix(tracker_file: Path, tmp_path: Path) -> None:
    track(tracker_file, tmp_path / "one", tmp_path / "two")

    (one,), (two,) = offline_runs(tmp_path / "one"), offline_runs(tmp_path / "two")
    assert head(one)["run_id"] != head(two)["run_id"]
    assert [head(run)["display_name"] for run in (one, two)] == ["one", "two"]
    assert [len(history(run, "train/loss")) for run in (one, two)] == [3, 3]


def test_runs_in_parallel_processes_do_not_mix(tracker_file: Path, tmp_path: Path) -> None:
    names = ("one", "two")
    processes = [start_tracking(tracker_file, tmp_path / name) for name in names]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output

    for name in names:
        (run,) = offline_runs(tmp_path / name)
        assert head(run)["display_name"] == name
        assert len(history(run, "train/loss")) == 3


def test_a_resumed_run_goes_on_in_its_wandb_run_and_loses_no_step_that_it_repeats(
    tracker_file: Path, tmp_path: Path
) -> None:
    track(tracker_file, tmp_path / "one")
    time.sleep(1)  # The folders of a run's sessions are named by the second.
    track(tracker_file, tmp_path / "one")

    before, after = offline_runs(tmp_path / "one")
    assert head(before)["run_id"] == head(after)["run_id"] == (tmp_path / "one/wandb_id").read_text().strip()
    assert [step for step, _ in history(after, "train/loss")] == [3, 4, 5]


@pytest.mark.slow
def test_without_a_server_the_run_is_tracked_offline_after_a_short_wait_and_the_key_is_not_shown(
    tracker_file: Path, tmp_path: Path
) -> None:
    key = "0123456789abcdef" * 2 + "01234567"
    begin = time.monotonic()
    told = track(
        tracker_file,
        tmp_path / "one",
        environment={"WANDB_API_KEY": key, "WANDB_BASE_URL": "http://127.0.0.1:9"},
    )

    assert time.monotonic() - begin < 20
    assert len(told) == 1
    assert told[0].startswith("W&B is offline (CommError: ")
    assert key not in told[0]
    assert len(history(offline_runs(tmp_path / "one")[-1], "train/loss")) == 3


def test_a_malformed_key_means_offline_and_is_not_shown(tracker_file: Path, tmp_path: Path) -> None:
    told = track(tracker_file, tmp_path / "one", environment={"WANDB_API_KEY": "s e c r e t"})

    assert len(told) == 1
    assert told[0].startswith("W&B is offline (AuthenticationError: ")
    assert "s e c r e t" not in told[0]
    assert offline_runs(tmp_path / "one")


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_wandb_mode_is_respected_even_with_a_key(tracker_file: Path, tmp_path: Path, mode: str) -> None:
    told = track(tracker_file, tmp_path / "one", environment={"WANDB_MODE": mode, "WANDB_API_KEY": "a" * 40})

    assert len(told) == (1 if mode == "offline" else 0)
    assert len(offline_runs(tmp_path / "one")) == (1 if mode == "offline" else 0)


def test_a_broken_wandb_is_told_once_and_stops_nothing(tracker_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "wandb.py").write_text("raise ImportError('half an installation')\n")
    told = track(
        tracker_file, tmp_path / "one", environment={"PYTHONPATH": f"{broken}{os.pathsep}{PLATFORM}"}
    )

    assert told == ["W&B failed and is off from here, the run goes on: ImportError: half an installation"]


def test_a_wandb_service_that_dies_in_a_run_stops_nothing_and_the_next_run_is_tracked(
    tracker_file: Path, tmp_path: Path
) -> None:
    begin = time.monotonic()
    told = track(tracker_file, tmp_path / "one", tmp_path / "two", "--kill")

    assert time.monotonic() - begin < 20
    assert len(told) == 3
    assert told[1].startswith("W&B failed and is off from here")
    assert told[0] == told[2]
    (two,) = offline_runs(tmp_path / "two")
    assert len(history(two, "train/loss")) == 3


class _Server(BaseHTTPRequestHandler):
    """As much of a W&B server as it takes to open a run; asked for ``/lose``, it goes."""

    def do_GET(self) -> None:
        self._answer({})
        if self.path == "/lose":
            threading.Thread(target=lambda: (self.server.shutdown(), self.server.server_close())).start()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        project = {"id": "p", "name": "dure-tests", "entity": {"id": "e", "name": "team"}}
        bucket = {"id": "x", "name": "n", "displayName": "one", "config": "{}", "historyLineCount": 0}
        opened = {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        self._answer({"data": opened if b"UpsertBucket" in body else {}})

    def _answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.slow  # wandb is given 20 s to send the rest
def test_a_server_that_is_lost_in_a_run_stops_nothing_and_what_it_lacks_is_kept_and_said(
    tracker_file: Path, tmp_path: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    begin = time.monotonic()
    told = track(
        tracker_file,
        tmp_path / "one",
        "--lose",
        environment={"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": address},
    )

    assert time.monotonic() - begin < 45
    assert told[0] == f"W&B: {address}/team/dure-tests"
    assert len(told) == 2
    assert "wandb sync RUN/wandb/run-*" in told[1]
    (kept,) = (tmp_path / "one").glob("wandb/run-*/*.wandb")
    assert [step for step, _ in history(records(kept), "train/loss")] == [1, 2, 3]


def test_an_experiment_without_wandb_is_not_tracked(experiment: Experiment) -> None:
    off = experiment.model_copy(update={"wandb": experiment.wandb.model_copy(update={"enabled": False})})

    assert trackers_for(off) == ()
    assert [type(each) for each in trackers_for(experiment)] == [WandbTracker]
