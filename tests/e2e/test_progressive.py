"""`dure progressive`: its folder, a kill in mid-study, the background, beginning again, and wrong input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from .conftest import call, environment, program
from .test_wrong_input import check_message

VERB = ("progressive", "transfer_bert", "--rehearse")
SMALL = (
    "rehearsal.hidden_size=32", "rehearsal.num_layers=1", "rehearsal.vocab_size=400",
    "rehearsal.max_train_rows=40", "rehearsal.max_dev_rows=20", "training.batch_size=4",
    "training.best_metric=eval_loss",
    "training.early_stopping_patience=100", "wandb.enabled=false",
)  # fmt: skip
SHORT = (*VERB, "--step-size", "0.3", "--epochs-per-stage", "6", *SMALL)
STAGES = ["stage_1_10pct", "stage_2_40pct", "stage_3_70pct", "stage_4_100pct"]
RESULTS, PID = "progressive_training_results.json", "progressive_training.pid"


@dataclass(frozen=True)
class Killed:
    """A training that was killed in a stage and started again: its folder, and what was known in between."""

    folder: Path
    finished: dict[Path, int]
    """Time of every file of the stages that were finished at the kill."""
    results: dict


def times(*folders: Path) -> dict[Path, int]:
    """When every file was written; without models to predict with, of which only the best stage's stays."""
    return {
        file: file.stat().st_mtime_ns
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and file.parent.name != "final_model"
    }


def weights(stage: Path) -> dict[str, torch.Tensor]:
    return torch.load(stage / "checkpoints" / "best_model.pt", weights_only=True)["model_state"]


def assert_same_training(one: Path, other: Path, stages: list[str]) -> None:
    for stage in stages:
        first, second = weights(one / stage), weights(other / stage)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), stage
        records = [json.loads((path / stage / "training_metrics.json").read_text()) for path in (one, other)]
        assert records[0]["score"] == records[1]["score"]


def wait_for(condition: Callable[[], object], process: psutil.Process, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        assert process.is_running(), "it ended before"
        time.sleep(0.005)


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


def killed_in(
    place: int, command: tuple[str, ...], stages: list[str], folder: Path, name: str = "killed"
) -> Killed:
    """Kill a training in a stage (counted from 0), and start it again with the same command."""
    words = [*command, "--output", name, "--json"]
    path = folder / name
    with (folder / f"{name}.log").open("w") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "dure", *words], cwd=folder, env=environment(), stdout=log, stderr=log
        )
        wait_for(
            lambda: list((path / stages[place] / "checkpoints").glob("checkpoint-*")),
            psutil.Process(driver.pid),
        )
        started = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert_all_end(started)
    assert not (path / stages[place] / "training_metrics.json").exists(), "the kill came too late"
    finished = times(*(path / stage for stage in stages[:place]))
    again = program(*words, cwd=folder)
    assert again.code == 0, again.err
    for stage in stages[:place]:
        assert f"stage {stage.split('_')[1]} of" not in again.err
    return Killed(path, finished, again.value)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder in which all trainings of these tests lie, with a cache of its own."""
    folder = tmp_path_factory.mktemp("progressive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DURE_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def whole(place, ray_address):
    """A training that nothing disturbed: its folder."""
    outcome = call(*SHORT, "--output", place / "whole", "--json", "--address", ray_address)
    assert outcome.code == 0, outcome.err
    assert outcome.value == json.loads((place / "whole" / RESULTS).read_text(encoding="utf-8"))
    return place / "whole"


@pytest.fixture(scope="module")
def continued(place):
    return killed_in(2, SHORT, STAGES, place)


def test_the_folder_is_laid_out_as_promised(whole, tmp_path):
    assert {path.name for path in whole.iterdir()} == {
        ".ray_tune", ".untrained", "environment.json", "experiment.yaml", "final_model", "logs", "progressive_training.png", RESULTS,
        "progressive_training_summary.txt", "result.json", "study.yaml", "events.jsonl", "report.html",
        "training_curves.png", *STAGES,
    }  # fmt: skip
    [log] = (whole / "logs").iterdir()
    assert log.match("progressive_training_????????_??????.log")
    for stage in STAGES:
        folder = whole / stage
        assert {path.name for path in folder.iterdir()} == {
            "checkpoints", "logs", "training_metrics.json",
            "environment.json", "experiment.yaml", "metrics.jsonl", "predictions.csv", "result.json",
        }  # fmt: skip
        assert {path.name for path in (folder / "checkpoints").iterdir()} == {
            "best_model.pt", *(f"epoch_{epoch}.pt" for epoch in range(1, 7)),
        }  # fmt: skip
        [log] = (folder / "logs").iterdir()
        assert log.match(f"{stage}_????????_??????.log")
    results = json.loads((whole / RESULTS).read_text(encoding="utf-8"))
    assert [stage["name"] for stage in results["stages"]] == STAGES
    rows = [stage["num_rows"] for stage in results["stages"]]
    assert rows == sorted(set(rows))
    assert rows[-1] == 40
    # What is foretold is foretold for all rows, so that it can be held against what they gave.
    assert {stage["forecast"]["at_rows"] for stage in results["stages"] if stage["forecast"]} == {40}

    # The folder predicts, with the best stage's weights.
    (tmp_path / "new.csv").write_text("text\n배송이 빨라요\n별로예요\n", encoding="utf-8")
    outcome = call("predict", whole, "new.csv", "--output", "labels.csv", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.value["rows"] == 2
    from safetensors.torch import load_file

    kept, best = (
        load_file(whole / "final_model" / "model.safetensors"),
        weights(whole / results["best_stage"]),
    )
    assert all(torch.equal(tensor, best[name]) for name, tensor in kept.items())


@pytest.mark.slow
def test_a_kill_in_the_third_stage_costs_nothing_that_was_finished(whole, continued):
    assert continued.results["state"] == "completed"
    assert times(*(continued.folder / stage for stage in STAGES[:2])) == continued.finished
    assert_same_training(continued.folder, whole, STAGES)
    assert sorted(path.name for path in continued.folder.glob("stage_*")) == STAGES
    # Nothing half written is left of the stage that was cut.
    assert list(continued.folder.glob("stage_*/checkpoints/.*")) == []
    assert list(continued.folder.glob("stage_*/checkpoints/checkpoint-*")) == []


@pytest.mark.slow
def test_a_stage_is_begun_again_in_the_background_and_stopped_in_order(whole, continued, place):
    folder = continued.folder
    again = (*VERB, "--start-ratio", "0.7", *SMALL, "--output", str(folder), "--json")
    before = times(*(folder / stage for stage in STAGES[:2]))
    started = program(*again, "--background", cwd=place)
    assert started.code == 0, started.err
    pid = started.value["pid"]
    assert (folder / PID).read_text(encoding="utf-8") == f"{pid}\n"
    driver = psutil.Process(pid)
    check_message(call(*again, "--background"), f"process {pid}", f"dure stop {folder}")
    check_message(call(*again), f"process {pid}", f"dure stop {folder}")

    # The stages from there on were moved aside before it began.
    wait_for(lambda: list((folder / STAGES[2] / "checkpoints").glob("checkpoint-*")), driver)
    [aside] = folder.glob("replaced_*")
    assert {path.name for path in aside.iterdir()} == {*STAGES[2:], "final_model"}
    keeper = psutil.Process(
        json.loads(Path(started.value["log"]).with_name("keeper.json").read_text())["pid"]
    )
    everything = [driver, keeper, *keeper.children(recursive=True)]
    assert any("raylet" in process.name() for process in everything)
    stopped = call("stop", folder, "--json")
    assert stopped.code == 0, stopped.err
    assert stopped.value["pid"] == pid
    # With its last job the cluster ends.
    assert_all_end(everything)
    assert not (folder / PID).exists()
    assert json.loads((folder / RESULTS).read_text(encoding="utf-8"))["state"] == "interrupted"
    check_message(call("stop", folder), str(folder), "nothing")

    # The same command goes on where that was stopped, from the best model of the stage before.
    finished = program(*again, cwd=place)
    assert finished.code == 0, finished.err
    assert finished.value["state"] == "completed"
    assert list(folder.glob("replaced_*")) == [aside]
    assert times(*(folder / stage for stage in STAGES[:2])) == before
    assert [stage["warm_start"] for stage in finished.value["stages"][2:]] == [
        f"{stage}/checkpoints/best_model.pt" for stage in STAGES[1:3]
    ]
    assert_same_training(folder, whole, STAGES)
    assert (folder / "final_model" / "config.json").is_file()


@pytest.mark.slow
def test_ten_stages_killed_in_the_fourth_end_as_if_nothing_had_happened(place):
    command = (*VERB, "wandb.enabled=false")
    stages = [f"stage_{number}_{10 * number}pct" for number in range(1, 11)]
    outcome = program(*command, "--output", "ten", "--json", cwd=place, timeout=400)
    assert outcome.code == 0, outcome.err
    assert [stage["name"] for stage in outcome.value["stages"]] == stages
    assert stages[-2:] == ["stage_9_90pct", "stage_10_100pct"]
    assert outcome.value["stages"][-1]["score"] > 0.9
    killed = killed_in(3, command, stages, place, "ten_killed")
    assert times(*(killed.folder / stage for stage in stages[:3])) == killed.finished
    assert_same_training(killed.folder, place / "ten", stages)


RATE = "training.learning_rate"
CASES = {
    # options, what the message must say
    "nothing of the data": (["--start-ratio", "0"], ["--start-ratio", "'0'"]),
    "more than the data": (["--start-ratio", "1.5"], ["--start-ratio", "'1.5'"]),
    "no ratio": (["--start-ratio", "abc"], ["--start-ratio", "'abc'", "0.1"]),
    "end before the start": (["--max-ratio", "0.05"], ["--max-ratio", "0.05", "0.1"]),
    "end before the given start": (
        ["--start-ratio", "0.5", "--max-ratio", "0.2"],
        ["--start-ratio", "--max-ratio", "0.5", "0.2"],
    ),
    "no step": (["--step-size", "0"], ["--step-size", "'0'"]),
    "too many stages": (["--step-size", "0.0001"], ["--step-size", "1,000"]),
    "unknown key": (["--candidates", "training.lerning_rate=1e-4"], ["--candidates", "training.learning_rate"]),
    "unknown space": (["--candidates", "x"], ["--candidates", "'x'", "learning_rate"]),
    "no values": (["--candidates", f"{RATE}="], ["--candidates", RATE]),
    "impossible value": (["--candidates", f"{RATE}=fast"], ["--candidates", RATE, "a number"]),
    "value out of range": (["--candidates", f"{RATE}=1e-4,7"], ["--candidates", RATE, "7"]),
    "a value twice": (["--candidates", f"{RATE}=1e-4,1e-4"], ["--candidates", "0.0001", "twice"]),
    "points without a space": (["--num-candidates", "3"], ["--num-candidates", "--candidates"]),
    "points beside values": (
        ["--candidates", f"{RATE}=1e-4,1e-3", "--num-candidates", "3"],
        ["--num-candidates", "space"],
    ),
    "no points": (["--candidates", "learning_rate", "--num-candidates", "0"], ["--num-candidates", "0"]),
    "eta of none": (["--eta", "0"], ["--eta", "0", "at least 1"]),
    "no epochs": (["--epochs-per-stage", "0"], ["--epochs-per-stage", "0", "at least 1"]),
    "no memory": (["--max-memory-mb", "0"], ["--max-memory-mb", "0", "at least 1"]),
    "gain below nothing": (["--min-gain", "-1"], ["--min-gain", "-1"]),
    "no gain": (["--min-gain", "nan"], ["--min-gain"]),
    "unknown answer to the baseline": (["--on-baseline", "x"], ["--on-baseline", "'stop'", "'warn'"]),
    "nothing to resume": (["--resume"], ["--resume", "outputs/transfer_bert-progressive"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_options_are_named_and_leave_nothing(case, tmp_path):
    options, said = CASES[case]
    check_message(call(*VERB, *options), *said)
    check_message(call(*VERB, *options, "--dry-run"), *said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_finished_training_takes_a_further_stage_and_a_further_candidate_and_does_nothing_again(tmp_path):
    verb = (*VERB, *SMALL, "--epochs-per-stage", "1", "--eta", "1")
    less, more = ("--ratios", "0.4"), ("--ratios", "0.4,0.8")
    assert program(*verb, *less, "--output", tmp_path / "one", cwd=tmp_path).code == 0
    first = tmp_path / "one" / "stage_1_40pct"
    before = times(first)
    assert program(*verb, *more, "--output", tmp_path / "one", "--resume", cwd=tmp_path).code == 0
    assert program(*verb, *more, "--output", tmp_path / "whole", cwd=tmp_path).code == 0
    assert before.items() <= times(first).items()
    assert_same_training(tmp_path / "one", tmp_path / "whole", ["stage_1_40pct", "stage_2_80pct"])

    two, three = f"{RATE}=1e-4,3e-4", f"{RATE}=1e-4,3e-4,1e-3"
    folder = tmp_path / "candidates"
    assert program(*verb, *less, "--candidates", two, "--output", folder, cwd=tmp_path).code == 0
    stages = [folder / name / "stage_1_40pct" for name in ("candidate_1", "candidate_2")]
    before = times(*stages)
    again = (*verb, *less, "--candidates", three, "--output", folder, "--resume")
    assert program(*again, cwd=tmp_path).code == 0
    assert times(*stages) == before
    assert (folder / "candidate_3" / "stage_1_40pct" / "result.json").is_file()


@pytest.mark.parametrize("folder", [".", "none", "plain"])
def test_stopping_where_nothing_runs_is_said(folder, tmp_path):
    (tmp_path / "plain").write_text("x", encoding="utf-8")
    (tmp_path / "stale.pid").write_text("1\n", encoding="utf-8")
    check_message(call("stop", folder), folder, "--background")
    assert (tmp_path / "stale.pid").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--candidates", f"{RATE}=1e-3,1e-4"], ["--candidates", "cannot change"]),
        (["training.weight_decay=0.5"], ["training.weight_decay", "0.5", "experiment.yaml"]),
    ],
)
def test_what_cannot_change_while_a_training_goes_on_is_refused(options, said, whole):
    before = times(whole)
    check_message(call(*SHORT, "--output", whole, *options), *said)
    assert times(whole) == before


def test_a_stage_begins_only_after_a_finished_one(whole, tmp_path):
    for name in ("study.yaml", "experiment.yaml"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    outcome = call(*SHORT, "--output", tmp_path, "--start-ratio", "0.7")
    check_message(outcome, "--start-ratio 0.7", "stage_2_40pct", "not finished")
