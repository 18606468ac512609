"""A sweep on real Ray and a tiny model: same start for all, bad trials ended, continued with more trials."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest

from dure.config import load_experiment, rehearsal_of
from dure.config.spaces import SearchSpace
from dure.config.storage import StorageConfig
from dure.errors import UserError
from dure.events import RunProgress, StudyListener
from dure.files import read_json_lines, write_text
from dure.reporting.columns import plain_text
from dure.runs.folder import RunFolder, RunResult
from dure.studies.board import Board
from dure.studies.divergence import DivergedError, DivergenceGuard
from dure.studies.kind import Session
from dure.studies.life_cycle import run_experiments
from dure.studies.study import stored_study
from dure.studies.sweep.driver import RESULTS, WINNER, SweepKind, check_for, finished_sweep
from dure.studies.sweep.optuna_study import JOURNAL
from dure.studies.sweep.plan import SweepMetric, SweepStudy, parse_point, plan_sweep
from dure.studies.sweep.report import sweep_table
from dure.studies.sweep.results import stability
from dure.studies.sweep.strategy import Sweep
from dure.studies.trial import TrialRequests

LR = "training.learning_rate"


class _Notes(StudyListener):
    def __init__(self):
        self.states = []

    def changed(self, trial):
        if (trial.name, trial.state) not in self.states:
            self.states.append((trial.name, trial.state))


@pytest.fixture
def wide(tmp_path):
    """A space up to a rate at which the tiny model explodes."""
    file = tmp_path / "wide.yaml"
    file.write_text(f"parameters:\n  {LR}: {{type: log_uniform, low: 1e-5, high: 1.0}}\n", encoding="utf-8")
    return str(file)


def test_a_sweep_of_a_tiny_model_from_first_points_to_more_trials(tiny, cpu, wide, tmp_path, ray_address):
    experiment = tiny("bart", "full", best_metric="eval_loss", warmup_ratio=0.0, max_steps=6)
    path = tmp_path / "study"
    study = plan_sweep("tiny", space=wide, num_trials=3, tries=("1e-4", "1e-2", "1"))
    notes = _Notes()
    one = cpu.model_copy(update={"max_concurrent_trials": 1})
    results = run_experiments(
        study, [experiment], profile=one, path=path, follower=notes, address=ray_address
    )
    summary = results.as_json()

    assert summary["state"] == "completed", summary
    assert [summary["values"][f"trial_00{place}"] for place in range(3)] == [
        {LR: 1e-4},
        {LR: 1e-2},
        {LR: 1.0},
    ]
    states = {entry["name"]: entry["state"] for entry in summary["experiments"]}
    assert states == {"trial_000": "completed", "trial_001": "completed", "trial_002": "diverged"}
    assert summary["best"] == "trial_001"

    # The same weights and the same first rows for all: what is measured before a step does not differ.
    records = [read_json_lines(RunFolder(path / name).metrics) for name in states]
    assert len({run[0]["untrained_loss"] for run in records}) == 1
    assert len({next(row["loss"] for row in run if row["kind"] == "train") for run in records}) == 1

    # The divergent one ended at once, counts as worst, and left no weights; nor did the beaten one.
    assert records[2][-1]["step"] < records[0][-1]["step"]
    assert not (path / "trial_002" / "final_model").exists()
    assert not (path / "trial_000" / "final_model").exists()
    assert (path / "trial_001" / "final_model").is_dir()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path / JOURNAL)))
    kept = optuna.load_study(study_name=None, storage=storage)
    assert kept.best_params == {LR: 1e-2}
    assert kept.trials[2].value == float("inf")

    record = json.loads(next((path / RESULTS).glob("lr_sweep_2*.json")).read_text(encoding="utf-8"))
    point = record["points"][1]
    assert point["params"] == {LR: 1e-2}
    assert point["metrics"]["eval_loss"] == kept.best_value
    assert point["samples_per_second"] > 0
    assert point["losses"][0]["samples"] == experiment.training.effective_batch_size
    picture = next((path / RESULTS).glob("lr_sweep_plot_*.png")).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert load_experiment(summary["winner"]).training.learning_rate == 1e-2
    assert finished_sweep(path).winning_values() == {LR: 0.01}

    # Continued with two more: nothing is run again, and the search goes on.
    before = (path / "trial_000" / "result.json").stat().st_mtime_ns
    begun = stored_study(path, SweepStudy)
    more = plan_sweep("tiny", num_trials=4, tries=("5e-3",), before=begun).continued(begun, str(path))
    again = _Notes()
    summary = run_experiments(
        more, [experiment], profile=one, path=path, resume=True, follower=again, address=ray_address
    ).as_json()
    assert {name for name, _ in again.states} == {"trial_003"}
    assert summary["values"]["trial_003"] == {LR: 5e-3}
    assert (path / "trial_000" / "result.json").stat().st_mtime_ns == before
    assert stored_study(path, SweepStudy).num_trials == 4


def test_what_cannot_be_is_said_before_anything_starts(tiny, tmp_path):
    experiment = tiny("t5", "lora")
    space = tmp_path / "space.yaml"
    space.write_text(
        "parameters:\n  training.learning_rat: {type: uniform, low: 0.1, high: 0.2}\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="unknown key 'training\\.learning_rat'"):
        Sweep(plan_sweep("tiny", space=str(space)).resolved([experiment]), experiment, tmp_path / "a")
    with pytest.raises(UserError, match="end only"):
        Sweep(plan_sweep("tiny", scheduler="asha").resolved([experiment]), experiment, tmp_path / "b")
    two = plan_sweep("tiny", scheduler="median", metrics=["eval_loss", "seconds"]).resolved([experiment])
    assert two.metrics[1] == SweepMetric(name="seconds", direction="min")
    with pytest.raises(UserError, match="by 2 metrics"):
        Sweep(two, experiment, tmp_path / "c")
    with pytest.raises(UserError, match="no folder of a sweep"):
        finished_sweep(tmp_path)
    seeds = tmp_path / "seeds.yaml"
    seeds.write_text("parameters:\n  experiment.seed: {type: int, low: 1, high: 9}\n", encoding="utf-8")
    with pytest.raises(UserError, match="all trials share"):
        plan_sweep("tiny", space=str(seeds))


@pytest.mark.parametrize("state", ["completed", "diverged", "failed"])
def test_a_search_is_told_how_a_trial_on_another_machine_ended(state, tiny, cpu, tmp_path):
    experiment = tiny("t5", "lora", best_metric="eval_loss")
    study = plan_sweep("tiny", num_trials=1).named([experiment]).resolved([experiment])
    strategy = Sweep(study, experiment, tmp_path)
    strategy.search.suggest("tunes")
    left = RunResult("trial_000", state, {"eval_loss": 0.5} if state == "completed" else {})
    strategy.mirrored(lambda folder: RunFolder(folder).write_result(left))
    strategy.search.on_trial_complete("tunes", {"eval_loss": 0.6, "samples": 8})
    assert strategy.search.failure is None
    told = strategy.search.trials()["trial_000"]
    expected = {"completed": ("COMPLETE", 0.5), "diverged": ("COMPLETE", math.inf), "failed": ("FAIL", None)}
    assert (told.state.name, told.value) == expected[state]


def test_a_trial_logs_in_to_mlflow_and_no_config_shows_how(tiny, cpu, tmp_path):
    experiment = tiny("t5", "lora").with_({"mlflow.uri": "http://team:hunter2@host"})
    study = plan_sweep("tiny", num_trials=1).named([experiment]).resolved([experiment])
    board = Board(Sweep(study, experiment, tmp_path), cpu, tmp_path, StudyListener())
    config = board.strategy.search.suggest("tunes")
    assert "hunter2" not in str(config)
    requests = TrialRequests("s", cpu, tmp_path, plans=board.plans, mlflow_uri=board.strategy.mlflow_uri)
    assert requests.of(config).experiment.mlflow.uri == "http://team:hunter2@host"


def test_a_strategy_gets_what_brings_folders_from_other_machines(tiny, cpu, tmp_path):
    experiment, taken = tiny("t5", "lora"), []
    strategy = Sweep(plan_sweep("tiny").named([experiment]).resolved([experiment]), experiment, tmp_path)
    strategy.mirrored = taken.append
    stored = cpu.model_copy(update={"storage": StorageConfig(url=(tmp_path / "far").as_uri())})
    board = Board(strategy, stored, tmp_path, StudyListener())
    assert board.mirror is not None
    assert taken == [board.mirror.pull]


def test_a_search_that_is_not_found_does_not_begin_again_among_its_trials(tiny, cpu, tmp_path):
    experiment = tiny("t5", "lora")
    study = plan_sweep("tiny", storage=f"sqlite:///{tmp_path / 'sweeps.db'}").named([experiment])
    kind = SweepKind(study.resolved([experiment]), [experiment], lambda each: each)
    folder = RunFolder(tmp_path / "renamed" / "trial_000")
    write_text(folder.metrics, "")
    with pytest.raises(UserError, match="nothing of the search"):
        kind.begin(Session(cpu, tmp_path / "renamed", resume=True))


def test_points_are_read_as_people_write_them(tiny):
    space = plan_sweep("tiny", space="optimizer").space
    assert parse_point(space, "1e-4") == {LR: 1e-4}
    assert parse_point(space, f"{LR}=2e-4,training.scheduler=cosine") == {
        LR: 2e-4,
        "training.scheduler": "cosine",
    }
    listed = SearchSpace.model_validate(
        {
            "parameters": {
                "lora.targets": {"type": "choice", "values": [["q"], ["q", "v"]]},
                LR: space.parameters[LR],
            }
        }
    )
    for written in ("[q, v]", '["q","v"]', "['q', 'v']"):
        assert parse_point(listed, f"lora.targets={written},{LR}=1e-4") == {
            "lora.targets": ["q", "v"],
            LR: 1e-4,
        }
    for wrong, said in (
        ("0.5", "from 1e-05 to 0.01"),
        ("learning_rate=1e-4", "not searched"),
        ("x", "cannot"),
    ):
        with pytest.raises(UserError, match=said):
            parse_point(space, wrong)


def test_the_guard_ends_what_explodes_and_lets_a_hard_batch_pass():
    def progress(loss):
        return RunProgress("train", 1, 9, 0.1, 1.0, {"loss": loss})

    guard = DivergenceGuard()
    for loss in (2.0, 9.0, 2.0, 0.1, 5.9, 5.9, 9.0):
        guard.progressed(progress(loss))
    with pytest.raises(DivergedError, match=r"4\.5 times"):
        guard.progressed(progress(9.0))
    guard = DivergenceGuard()
    for loss in (0.0, -2.0, -1.0, 0.5, -3.0, 1.9):  # as likelihoods of densities are
        guard.progressed(progress(loss))
    guard.progressed(progress(2.1))
    with pytest.raises(DivergedError, match=r"loss 2\.1 at step 1, and -2 at first"):
        guard.progressed(progress(2.1))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DivergedError):
            DivergenceGuard().progressed(progress(bad))


def test_stability_is_the_jump_of_the_loss_and_not_its_descent():
    assert stability([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == pytest.approx(0.0)
    assert stability([2.0] * 4 + [1.0, 3.0, 1.0, 3.0]) > 1.0
    assert stability([2.0, None, 2.0, None]) is None


@pytest.mark.slow
def test_a_rehearsed_sweep_says_the_rates_that_trained_and_wins_nothing_for_the_real_model(
    tiny, cpu, tmp_path
):
    real = tiny("bart", "full", best_metric="eval_loss", warmup_ratio=0.0).with_(
        {"rehearsal.enabled": False, "rehearsal.learning_rate_scale": 50.0, "training.learning_rate": 1e-4}
    )
    path = tmp_path / "study"
    study = plan_sweep("tiny", num_trials=2, tries=("2e-5", "2e-4"))
    results = run_experiments(study, [real], profile=cpu, path=path, shape=rehearsal_of)

    # Each trial's own record is the reference.
    for trial in results.experiments:
        trained = load_experiment(str(RunFolder(Path(trial.path)).experiment)).training.learning_rate
        assert results.values[trial.name][LR] == pytest.approx(trained)
        assert results.proposed[trial.name][LR] == pytest.approx(trained / 50)
        assert f"{trained:.3g}" in plain_text(sweep_table(results))
    record = json.loads(next((path / RESULTS).glob("lr_sweep_2*.json")).read_text(encoding="utf-8"))
    assert {point["params"][LR] for point in record["points"]} == {1e-3, 1e-2}
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path / JOURNAL)))
    trials = optuna.load_study(study_name=None, storage=storage).trials
    assert [trial.user_attrs["trained"][LR] for trial in trials] == pytest.approx([1e-3, 1e-2])

    assert results.verdict.is_rehearsal
    assert results.verdict.rule == "paired losses"
    winner = (path / WINNER).read_text(encoding="utf-8")
    assert winner.startswith("# The winner of a rehearsal")
    assert load_experiment(str(path / WINNER)).rehearsal.enabled
    with pytest.raises(UserError, match="this sweep was a rehearsal"):
        check_for(results, real, notify=print, where="--from-sweep")
    told = []
    check_for(results, rehearsal_of(real), notify=told.append, where="--from-sweep")
    assert any("rehearsal" in each for each in told)
    # Rehearsed again, the point becomes what was trained.
    again = rehearsal_of(real.with_(results.winning_values()))
    assert again.training.learning_rate == results.best_values[LR]


@pytest.mark.slow
def test_a_sweep_of_one_step_at_rate_0_has_no_winner_and_the_configured_rate_stays(tiny, cpu, tmp_path):
    experiment = tiny("bart", "full", best_metric="eval_loss").with_(
        {"training.warmup_steps": 100, "training.max_steps": 1, "training.eval_every": 1}
    )
    path = tmp_path / "study"
    study = plan_sweep("tiny", sampler="grid", num_trials=2)
    results = run_experiments(study, [experiment], profile=cpu, path=path)
    assert results.verdict.status == "no_step"
    assert results.verdict.never_rose == ("trial_000", "trial_001")
    assert results.winner is None
    assert not (path / WINNER).exists()
    assert finished_sweep(path).winning_values() == {}
