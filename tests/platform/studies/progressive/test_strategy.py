"""Progressive training on real Ray and a tiny model: who goes on, what lies where, and what is not done twice."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch

from dure.config.loading import dump_yaml
from dure.events import StudyListener, TrialStatus
from dure.files import read_json_lines, write_json, write_text
from dure.runs.folder import RUN_RECORD, STUDY_FILE
from dure.studies.kind import Session
from dure.studies.life_cycle import run_experiments
from dure.studies.progressive.driver import PLOT, ProgressiveKind
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.strategy import Progressive
from dure.studies.study import read_results, stored_study
from dure.training.arguments import total_steps

LR = "training.learning_rate"
RESULTS, SUMMARY = ProgressiveKind.results_file, str(ProgressiveKind.text_file)
RATIOS = (Fraction(1, 4), Fraction(1, 2), Fraction(1))
STAGES = ["stage_1_25pct", "stage_2_50pct", "stage_3_100pct"]
KEYS = {
    "stage", "name", "ratio", "num_rows", "num_rows_in_all", "num_dev_rows", "state", "score", "metrics", "best_epoch",
    "checkpoint", "warm_start", "seconds", "peak_memory_mb", "cpu_percent", "batch_size",
    "gradient_accumulation_steps", "samples", "baseline", "forecast",
}  # fmt: skip


class _Notes(StudyListener):
    def __init__(self):
        self.states, self.stages, self.told_lines = [], [], []

    def changed(self, trial):
        if (trial.name, trial.state) not in self.states:
            self.states.append((trial.name, trial.state))
        if trial.stage and (trial.name, trial.stage) not in self.stages:
            self.stages.append((trial.name, trial.stage))

    def notified(self, message):
        self.told_lines.append(message)


@pytest.fixture
def by_loss(tiny):
    """A classifier that is judged by its loss, which tells good learning rates from bad ones in few steps."""
    return tiny("bert", "full", best_metric="eval_loss", warmup_ratio=0.0)


def times(path):
    return {
        file.relative_to(path): file.stat().st_mtime_ns
        for file in sorted(path.glob("**/stage_*/**/*"))
        if file.is_file()
    }


@pytest.mark.slow
def test_three_candidates_on_growing_data(by_loss, cpu, tmp_path, ray_address):
    study = ProgressiveStudy(
        name="three",
        experiment="by_loss",
        ratios=RATIOS,
        candidates=({LR: 1.0}, {LR: 1e-6}, {LR: 3e-3}),
        on_baseline="warn",
    )
    path, notes = tmp_path / "study", _Notes()
    one = cpu.model_copy(update={"max_concurrent_trials": 1})
    record = run_experiments(study, [by_loss], profile=one, path=path, follower=notes, address=ray_address)
    results = record.as_json()

    # One diverges, one is beaten at the first ratio, and the third, alone, goes on to all of the data.
    assert results["state"] == "completed", results
    states = {each["name"]: (each["state"], len(each["stages"])) for each in results["candidates"]}
    assert states == {
        "candidate_1": ("diverged", 0),
        "candidate_2": ("stopped", 1),
        "candidate_3": ("completed", 3),
    }
    assert [each["values"] for each in results["candidates"]] == list(study.candidates)
    reasons = [each["reason"] for each in results["candidates"]]
    assert "loss" in reasons[0]
    assert "stage_1_25pct" in reasons[0]
    assert reasons[1] == "beaten at 25 %"
    assert results["winner"] == "candidate_3"
    assert [stage for name, stage in notes.stages if name == "candidate_3"] == [
        f"stage {number}/3" for number in (1, 2, 3)
    ]
    assert {stage for name, stage in notes.stages if name != "candidate_3"} == {"stage 1/3"}

    # The results are what the folder holds.
    assert json.loads((path / RESULTS).read_text(encoding="utf-8")) == results
    stages = results["stages"]
    assert [stage["name"] for stage in stages] == STAGES
    assert all(stage.keys() == KEYS for stage in stages)
    assert [(stage["stage"], stage["ratio"]) for stage in stages] == [(1, 0.25), (2, 0.5), (3, 1.0)]
    assert [stage["num_rows"] for stage in stages] == [10, 20, 40]
    assert len({stage["num_dev_rows"] for stage in stages}) == 1
    assert all(stage["score"] == stage["metrics"]["eval_loss"] for stage in stages)
    assert all(stage["seconds"] > 0 and stage["peak_memory_mb"] > 100 for stage in stages)
    assert all(stage["metrics"]["unreleased_memory_mb"] < 1 for stage in stages)
    assert all(
        stage["batch_size"] * stage["gradient_accumulation_steps"] == results["effective_batch_size"] == 4
        for stage in stages
    )
    assert [stage["batch_size"] for stage in stages] == [2, 2, 4]
    assert [stage["warm_start"] for stage in stages] == [
        None,
        f"{STAGES[0]}/checkpoints/best_model.pt",
        f"{STAGES[1]}/checkpoints/best_model.pt",
    ]
    every = [stage for each in results["candidates"] for stage in each["stages"]]
    assert results["samples_trained"] == sum(stage["samples"] for stage in every) == 2 * (10 + 10 + 20 + 40)
    assert results["best_stage"] == min(stages, key=lambda stage: stage["score"])["name"]

    # Folders and files: every stage its own; models of the winner's best stage only, ready to predict.
    won = path / "candidate_3"
    for stage in stages:
        folder = won / stage["name"]
        files = {file.name for file in (folder / "checkpoints").iterdir()}
        assert files == {"best_model.pt", "epoch_1.pt", "epoch_2.pt"}
        assert stage["checkpoint"] == str(folder / "checkpoints" / "best_model.pt")
        best = torch.load(stage["checkpoint"], weights_only=True)
        assert best["epoch"] == stage["best_epoch"]
        assert best["step"] == stage["metrics"]["best_step"]
        assert len(list((folder / "logs").glob(f"{stage['name']}_*.log"))) == 1
        losses = {
            record["step"]: record["eval_loss"]
            for record in read_json_lines(folder / "metrics.jsonl")
            if "eval_loss" in record
        }
        assert stage["score"] == min(losses.values()) == losses[best["step"]]
    assert results["final_model"] == str(won / "final_model")
    assert [file.parent.name for file in path.glob("**/config.json")] == ["final_model"]
    assert (won / RUN_RECORD).is_file()
    beaten = path / "candidate_2" / STAGES[0] / "checkpoints"
    assert [file.name for file in beaten.iterdir()] == ["best_model.pt"]
    assert not list((path / "candidate_1").glob("**/final_model"))
    assert (path / PLOT).read_bytes().startswith(b"\x89PNG")
    summary = (path / SUMMARY).read_text(encoding="utf-8")
    for said in ("candidate_3", "beaten at 25 %", "diverged", "100 %"):
        assert said in summary
    assert len(list((path / "logs").glob("progressive_training_*.log"))) == 1
    assert stored_study(path, ProgressiveStudy) == study
    assert read_results(path) == record

    # Said again, there is nothing left to do: no Ray, and no file of a stage is touched.
    before, again = times(path), _Notes()
    repeated = run_experiments(
        study, [by_loss], profile=one, path=path, resume=True, follower=again
    ).as_json()
    assert times(path) == before
    assert again.states == []
    changing = ("started", "seconds", "experiments")
    assert {key: value for key, value in repeated.items() if key not in changing} == {
        key: value for key, value in results.items() if key not in changing
    }


@pytest.mark.slow
def test_too_much_memory_takes_smaller_batches_and_too_little_gain_ends_it(by_loss, cpu, tmp_path):
    path, notes = tmp_path / "study", _Notes()
    study = ProgressiveStudy(
        name="lone",
        experiment="by_loss",
        ratios=(Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1)),
        on_baseline="warn",
        max_memory_mb=1,
        min_gain=1000.0,
    )
    results = run_experiments(study, [by_loss], profile=cpu, path=path, follower=notes).as_json()
    first, second = results["stages"]
    assert [each["batch_size"] for each in (first, second)] == [2, 1]
    assert [each["gradient_accumulation_steps"] for each in (first, second)] == [2, 4]
    warned = [line for line in notes.told_lines if "--max-memory-mb 1" in line]
    assert len(warned) == 2
    assert f"stage 1 took {first['peak_memory_mb']:,.0f} MiB" in warned[0]
    assert "the next stage takes at most 1 row at a time" in warned[0]
    assert "already" in warned[1]

    # Stopped, with what it had as the result; it says why.
    assert results["state"] == "completed"
    assert results["stopped"] == "gain"
    assert results["winner"] == "lone"
    assert results["candidates"][0]["reason"] == "more data gains less than 1000"
    assert "more data" in (path / SUMMARY).read_text(encoding="utf-8")
    assert sorted(each.name for each in path.glob("stage_*")) == ["stage_1_25pct", "stage_2_50pct"]
    assert results["final_model"] == str(path / "final_model")
    assert (path / "final_model" / "config.json").is_file()
    # Whoever predicts by it needs to know how its rows were read.
    stages = {file.read_bytes() for file in path.glob("stage_*/environment.json")}
    assert (path / "environment.json").read_bytes() in stages

    # Every stage tells its memory and CPU, and which rows it took.
    for number in (1, 2):
        [line] = [line for line in notes.told_lines if f"stage {number} of 4" in line]
        for said in ("peak memory", "CPU", "0 MiB of tensors not released"):
            assert said in line


def test_a_forecast_of_stages_is_of_epochs_also_where_the_experiment_ends_after_some_steps(tiny):
    study = ProgressiveStudy(name="one", experiment="bert", ratios=RATIOS)
    experiment = tiny("bert", "full", max_steps=2)
    kind = ProgressiveKind(study, [experiment], lambda experiment: experiment)
    training = experiment.training
    steps = training.epochs * 640 // training.effective_batch_size
    assert [total_steps(each, 640) for each in kind.read()] == [steps]


def test_a_stage_that_began_from_another_than_the_schedule_has_is_trained_again(tiny, cpu, tmp_path):
    before = ProgressiveStudy(name="one", experiment="bert", ratios=(Fraction(1, 10), *RATIOS[1:]))
    after = before.with_values(ratios=RATIOS)
    write_text(tmp_path / STUDY_FILE, dump_yaml(before))
    for name, start in (("stage_1_10pct", None), (STAGES[1], "stage_1_10pct"), (STAGES[2], STAGES[1])):
        warm_start = start and f"{start}/checkpoints/best.pt"
        write_json(tmp_path / name / "training_metrics.json", {"warm_start": warm_start})
    notes = _Notes()
    session = Session(cpu, tmp_path, resume=True, follower=notes)
    kind = ProgressiveKind(after, [tiny("bert", "full")], lambda experiment: experiment)
    kind.begin(session)
    (aside,) = tmp_path.glob("replaced_*")
    assert sorted(each.name for each in aside.iterdir()) == STAGES[1:]
    assert (tmp_path / "stage_1_10pct").is_dir()
    assert "stage_2_50pct did not begin from stage_1_25pct" in notes.told_lines[0]
    # What goes on from the stage before it stays.
    for name, start in ((STAGES[0], None), (STAGES[1], STAGES[0])):
        warm_start = start and f"{start}/checkpoints/best.pt"
        write_json(tmp_path / name / "training_metrics.json", {"warm_start": warm_start})
    (tmp_path / STAGES[2]).mkdir()
    kind.begin(session)
    assert all((tmp_path / name).is_dir() for name in STAGES)


def test_the_summary_says_that_no_candidate_beat_the_trivial_baseline(tiny, tmp_path):
    study = ProgressiveStudy(
        name="two", experiment="bert", ratios=RATIOS, candidates=({LR: 1e-3}, {LR: 1e-4})
    )
    experiment = tiny("bert", "full")
    strategy = Progressive(study, [experiment] * 2, tmp_path)
    record = {
        "name": STAGES[0], "score": 0.4, "checkpoint": "x", "samples": 20,
        "metrics": {"eval_accuracy": 0.4, "baseline_accuracy": 0.5}, "ratio": 0.25, "num_rows": 10,
        "num_rows_in_all": 40, "num_dev_rows": 6, "stage": 1, "best_epoch": 1, "warm_start": None, "seconds": 1.0,
        "peak_memory_mb": 1.0, "cpu_percent": 99.0, "batch_size": 2, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    for name in study.names():
        write_json(tmp_path / name / STAGES[0] / "training_metrics.json", record)
    ended = [TrialStatus(name=name, state="stopped", path=tmp_path / name) for name in study.names()]
    summary = strategy.summary(ended)
    assert (summary["stopped"], summary["winner"], summary["baseline"]) == ("baseline", None, 0.5)
    running = [ended[0], TrialStatus(name="candidate_2", state="running", path=tmp_path / "candidate_2")]
    assert strategy.summary(running)["stopped"] is None
