"""TensorBoard and MLflow: side by side, resumed, set back, and without their server; a tracker stops no run."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import RunProgress, RunStart
from dure.reporting import tracker as trackers
from dure.reporting.tracker import Tracker, check_trackers, trackers_for
from dure.runs.folder import RunResult

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")  # fmt: skip
needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")


def experiment(**values) -> Experiment:
    return Experiment.model_validate(
        {"family": "trainables.transfer", "experiment": {"name": "a"}, "model": {"checkpoint": "c"}, **values}
    )


def session(
    tracker, path: Path, first: int, last: int, *, scale=1.0, state="completed", end=True
) -> list[str]:
    """Track the steps of one session as a run does, and return what was told."""
    told: list[str] = []
    tracker = pickle.loads(pickle.dumps(tracker))  # noqa: S301  # our own bytes
    path.mkdir(parents=True, exist_ok=True)
    settings = {"training": {"learning_rate": 3e-5}, "task": {}, "lora": None}
    tracker.started(RunStart(path.name, path, settings, ("ko", ""), "study", 6, first - 1), told.append)
    for step in range(first, last + 1):
        tracker.progressed(RunProgress("train", step, 6, step / 2, 0.1, {"loss": scale / step}))
    tracker.progressed(
        RunProgress("eval", last, 6, last / 2, 0.2, {"eval_f1[불만]": 0.5, "eval_loss": scale})
    )
    if end:
        tracker.finished(
            RunResult(path.name, state, {"eval_f1[불만]": 0.5, "train_runtime": 2.0, "train_loss": 0.25, "tokenizer": "x"})
        )  # fmt: skip
    return told


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@needs_tensorboard
def test_tensorboard_shows_a_run_that_was_killed_and_set_back_as_if_it_had_not_been(tmp_path):
    (tracker,) = trackers_for(experiment(tracking=["tensorboard"]))
    for name in ("one", "two"):
        session(tracker, tmp_path / name, 1, 4, scale=9.0, end=False)
        session(tracker, tmp_path / name, 3, 6)
    shown = scalars(tmp_path / "one" / "tensorboard")
    assert [step for step, _ in shown["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert shown["train/loss"][2][1] == pytest.approx(1 / 3)
    assert shown["eval/f1/불만"] == [(6, 0.5)]
    assert shown["result/train_runtime"] == [(6, 2.0)]
    assert scalars(tmp_path / "two" / "tensorboard").keys() == shown.keys()


@needs_tensorboard
def test_tensorboard_shows_step_0_once_of_a_run_that_began_again_without_a_checkpoint(tmp_path):
    for loss in (9.0, 1.0):
        (tracker,) = trackers_for(experiment(tracking=["tensorboard"]))
        tracker.started(RunStart("one", tmp_path, {}, ("ko", ""), "study", 6, 0), print)
        tracker.progressed(RunProgress("eval", 0, 6, 0.0, 0.1, {"eval_loss": loss}))
    assert scalars(tmp_path / "tensorboard")["eval/loss"] == [(0, 1.0)]


@needs_tensorboard
def test_tensorboard_has_the_settings_with_the_scores(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    (tracker,) = trackers_for(experiment(tracking=["tensorboard"]))
    session(tracker, tmp_path / "one", 1, 2)
    events = EventAccumulator(str(tmp_path / "one" / "tensorboard"))
    events.Reload()
    content = events.PluginTagToContent("hparams")
    begun = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert begun.hparams["training.learning_rate"].number_value == pytest.approx(3e-5)
    found = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    assert "result/train_loss" in {each.name.tag for each in found.metric_infos}


@needs_tensorboard
def test_a_folder_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path):
    (tracker,) = trackers_for(experiment(tracking=["tensorboard"]))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "tensorboard").write_text("in the way")
    told = session(tracker, tmp_path / "one", 1, 3)
    assert len(told) == 1
    assert told[0].startswith("TensorBoard failed and is off from here, the run goes on: ")


def check_mlflow(experiment_, tmp_path, client_of):
    """Two runs side by side, one of which was killed and goes on two steps before."""
    (tracker,) = trackers_for(experiment_)
    for name in ("one", "two"):
        session(tracker, tmp_path / name, 1, 4, scale=9.0, end=False)
    first = (tmp_path / "one" / "mlflow_run_id").read_text().strip()
    session(tracker, tmp_path / "one", 3, 6)
    session(tracker, tmp_path / "two", 5, 6)
    client = client_of()
    runs = {each.info.run_name: each for each in client.search_runs([client.get_experiment_by_name("dure").experiment_id])}  # fmt: skip
    assert set(runs) == {"one", "two"}
    one = runs["one"]
    assert one.info.run_id == (tmp_path / "one" / "mlflow_run_id").read_text().strip() != first
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert runs["two"].info.run_id == (tmp_path / "two" / "mlflow_run_id").read_text().strip()
    losses = {each.step: each.value for each in client.get_metric_history(one.info.run_id, "train/loss")}
    assert losses == pytest.approx({1: 9.0, 2: 4.5, 3: 1 / 3, 4: 1 / 4, 5: 1 / 5, 6: 1 / 6})
    assert len(client.get_metric_history(one.info.run_id, "train/loss")) == 6
    assert one.info.status == "FINISHED"
    assert one.data.params["training.learning_rate"] == "3e-05"
    assert one.data.metrics["eval/f1/불만"] == 0.5
    assert one.data.metrics["result/train_runtime"] == 2.0
    assert one.data.tags["result/tokenizer"] == "x"
    assert one.data.tags["dure.study"] == "study"


@needs_mlflow
def test_mlflow_keeps_runs_in_a_local_store(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_mlflow(
        experiment(tracking=["mlflow"]), tmp_path, lambda: MlflowClient((tmp_path / "mlruns").as_uri())
    )


@pytest.fixture
def server(tmp_path):
    """A real ``mlflow server`` on this machine: its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--default-artifact-root", str(tmp_path / "artifacts")],
        stdout=log, stderr=log, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(180):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).read()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError((tmp_path / "server.log").read_text())
        yield address, process
    finally:
        _end(process)
        log.close()


def _end(process):
    import os
    import signal

    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@needs_mlflow
@pytest.mark.slow  # a server takes half a minute to begin
def test_mlflow_keeps_runs_on_a_server_and_loses_no_run_with_it(server, tmp_path):
    from mlflow.tracking import MlflowClient

    address, process = server
    tracked = experiment(tracking=["mlflow"], mlflow={"uri": address})
    check_mlflow(tracked, tmp_path, lambda: MlflowClient(address))

    (tracker,) = trackers_for(tracked)
    told: list[str] = []
    (tmp_path / "lost").mkdir()
    tracker.started(RunStart("lost", tmp_path / "lost", {}, (), None, 3), told.append)
    _end(process)
    begin = time.monotonic()
    for step in (1, 2, 3):
        tracker.progressed(RunProgress("train", step, 3, step, 0.1, {"loss": 1.0}))
    tracker.finished(RunResult("lost", "completed"))
    assert time.monotonic() - begin < 30
    assert told[0] == f"MLflow: {address}"
    assert len(told) == 2
    assert told[1].startswith("MLflow failed and is off from here, the run goes on: ")


def test_trackers_are_named_once_and_wandb_may_be_enabled_by_itself():
    assert experiment(tracking=["tensorboard", "wandb"], wandb={"enabled": True}).trackers == (
        "tensorboard",
        "wandb",
    )
    assert experiment(wandb={"enabled": True}).trackers == ("wandb",)
    assert trackers_for(experiment()) == ()


def test_a_tracker_whose_package_is_missing_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dure\[mlflow\]'"):
        check_trackers(experiment(tracking=["mlflow"]))


def test_the_address_of_a_record_is_asked_for_again_with_its_password():
    whole = experiment(tracking=["mlflow"], mlflow={"uri": "http://team:hunter2@host"})
    check_trackers(whole)
    recorded = Experiment.model_validate(whole.model_dump(mode="json"))
    with pytest.raises(UserError, match="keeps no password"):
        check_trackers(recorded)
    check_trackers(recorded.with_({"tracking": []}))


class Toy(Tracker):
    label = "Toy"

    def __init__(self, file):
        super().__init__()
        self.file = file

    def open(self, start, notify):
        return True

    def log(self, step, epoch, values):
        with self.file.open("a") as file:
            file.write(json.dumps([step, values]) + "\n")
        if step == 2:
            raise OSError("the toy broke, with a-secret-key")

    def close(self, result):
        raise AssertionError("a broken tracker is not closed")


def test_a_new_tracker_is_a_subclass_and_one_line_and_what_it_raises_stops_nothing(tmp_path, monkeypatch):
    file = tmp_path / "toy.txt"
    monkeypatch.setenv("TOY_API_KEY", "a-secret-key")
    its_file = ModuleType("dure.reporting.toy_tracker")
    its_file.tracker = lambda experiment: Toy(file)
    monkeypatch.setitem(sys.modules, its_file.__name__, its_file)

    class Known(Experiment):
        tracking: tuple[Literal["wandb", "toy"], ...] = ()  # the one line

    known = {**experiment().model_dump(exclude_unset=True), "tracking": ["toy"]}
    (toy,) = trackers_for(Known.model_validate(known))
    told = session(toy, tmp_path / "run", 1, 4)
    assert [json.loads(line)[0] for line in file.read_text().splitlines()] == [1, 2]
    assert len(told) == 1
    assert told[0].startswith("Toy failed and is off from here, the run goes on: OSError: the toy broke")
    assert "a-secret-key" not in told[0]
