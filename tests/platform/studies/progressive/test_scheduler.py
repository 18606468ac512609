"""The contract of the progressive scheduler with real Tune: who runs what, when, and from which checkpoint."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import pytest
from ray import tune
from ray.tune.error import TuneError
from ray.tune.experiment import Trial

from dure.files import append_json_line, read_json_lines
from dure.runtime.cluster import cluster
from dure.studies.progressive.scheduler import KeepProgress, ProgressiveRatioScheduler

RATIOS = [0.1, 0.3, 1.0]
QUALITY = [0.5, 0.9, 0.2]
"""Of three candidates at their first ratio; each gains a tenth with every further one."""


@pytest.fixture(scope="module")
def ray_cluster(ray_address):
    with cluster(ray_address) as started:
        yield started


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    for name in ("TUNE_DISABLE_SIGINT_HANDLER", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    monkeypatch.setenv("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")


def _train(config):
    """Train one ratio: note it, go on from the checkpoint, and do what the candidate is told to do there."""
    import tempfile

    ratio, name = config["data_ratio"], config["name"]
    checkpoint, seen = tune.get_checkpoint(), []
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            seen = json.loads((Path(folder) / "seen.json").read_text())
    append_json_line(
        Path(config["log"]) / f"{name}.jsonl",
        {"name": name, "ratio": ratio, "seen": seen, "pid": os.getpid(), "time": time.time()},
    )
    behaviour = config.get("behaviour", {}).get(name, {}).get(str(ratio))
    if behaviour == "returns":
        return
    tune.report({"progress": 0.0})
    time.sleep(config["seconds"])
    failed = Path(config["log"]) / f"{name}.failed"
    if behaviour == "fails" or (behaviour == "fails once" and not failed.exists()):
        failed.touch()
        raise RuntimeError("told to fail")
    metrics = {"score": config["quality"] + 0.1 * len(seen), "data_ratio": ratio, "trivial": 0.3}
    if behaviour == "nan":
        metrics["score"] = math.nan
    if behaviour == "stops":
        metrics["done"] = True
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seen.json").write_text(json.dumps([*seen, ratio]))
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
    raise AssertionError("a trial went on behind the result that ends its ratio")


def _study(
    path,
    scheduler,
    *,
    qualities=QUALITY,
    train=_train,
    behaviour=None,
    seconds=0.0,
    resources=None,
    reuse=True,
    failures=0,
    callbacks=(),
):
    """Return a study of one candidate per quality, named c0, c1 and so on."""
    return tune.Tuner(
        tune.with_resources(train, resources or {"cpu": 1}),
        param_space={
            "candidate": tune.grid_search(list(range(len(qualities)))),
            "name": tune.sample_from(lambda config: f"c{config['candidate']}"),
            "quality": tune.sample_from(lambda config: qualities[config["candidate"]]),
            "log": str(path),
            "behaviour": behaviour or {},
            "seconds": seconds,
        },
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=reuse),
        run_config=tune.RunConfig(
            name="study",
            storage_path=str(path / "tune"),
            failure_config=tune.FailureConfig(max_failures=failures),
            callbacks=list(callbacks),
            verbose=0,
        ),
    )


def _scheduler(num_candidates=3, ratios=RATIOS, **settings):
    return ProgressiveRatioScheduler(
        ratios, metric="score", mode="max", num_candidates=num_candidates, **{"reduction": 2, **settings}
    )


def _runs(path, name) -> list[float]:
    """Return the ratios that a candidate ran; each must have come from the checkpoint of those before."""
    ran = read_json_lines(path / f"{name}.jsonl")
    for run in ran:
        assert run["seen"] == [ratio for ratio in RATIOS if ratio < run["ratio"]], run
    return [run["ratio"] for run in ran]


def _all_runs(path) -> list[tuple[str, float]]:
    """Return what ran, in order, of trials that ran one after the other."""
    ran = [run for file in path.glob("*.jsonl") for run in read_json_lines(file)]
    return [(run["name"], run["ratio"]) for run in sorted(ran, key=lambda run: run["time"])]


def _pids(path) -> list[int]:
    return [run["pid"] for file in sorted(path.glob("*.jsonl")) for run in read_json_lines(file)]


def _winner(scheduler, results) -> str:
    best = scheduler.race.ranking()[0]
    return next(result.config["name"] for result in results if result.metrics["trial_id"] == best)


def _candidate(scheduler, number):
    return list(scheduler.race.candidates.values())[number]


class _Watch(tune.Callback):
    """Notes how many trials run at once."""

    def __init__(self):
        self.most = 0

    def on_step_end(self, iteration, trials, **info):
        self.most = max(self.most, sum(trial.status == "RUNNING" for trial in trials))


class _Repeat(tune.Callback):
    """Hands results of all ratios that a trial has behind it to the scheduler once more."""

    def __init__(self, scheduler):
        self.scheduler, self.decisions = scheduler, set()

    def on_trial_result(self, iteration, trials, trial, result, **info):
        before, candidate = self.scheduler.race.as_dict(), self.scheduler.candidate(trial)
        for ratio in RATIOS[: len(candidate.scores)]:
            decision = self.scheduler.on_trial_result(None, trial, {"data_ratio": ratio, "score": 99.0})
            self.decisions.add((candidate.state, decision))
        assert self.scheduler.race.as_dict() == before


@pytest.mark.parametrize("reuse", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_reused_and_fresh_processes_run_the_ratios_in_order_from_checkpoint_to_checkpoint(
    reuse, ray_cluster, tmp_path
):
    scheduler = _scheduler(reduction=3)
    repeat = _Repeat(scheduler)
    results = _study(tmp_path, scheduler, reuse=reuse, callbacks=[repeat]).fit()
    assert {("waiting", "PAUSE"), ("running", "CONTINUE"), ("done", "STOP")} <= repeat.decisions
    assert repeat.decisions <= {
        ("waiting", "PAUSE"), ("running", "CONTINUE"), ("done", "STOP"), ("out", "STOP"),
    }  # fmt: skip
    assert not results.errors
    assert [_runs(tmp_path, f"c{place}") for place in range(3)] == [[0.1], RATIOS, [0.1]]
    assert _winner(scheduler, results) == "c1"
    assert scheduler.race.is_over
    assert [each.state for each in scheduler.race.candidates.values()] == ["out", "done", "out"]
    assert _candidate(scheduler, 1).scores == pytest.approx([0.9, 1.0, 1.1])
    pids = _pids(tmp_path)
    assert (len(set(pids)) == len(pids)) is not reuse


def test_those_that_fail_return_or_have_no_metric_are_out_and_the_others_go_on(ray_cluster, tmp_path):
    scheduler = _scheduler(num_candidates=6, reduction=1, baseline="trivial")
    behaviour = {
        "c0": {"0.1": "nan"},
        "c1": {"0.3": "fails"},
        "c2": {"0.3": "returns"},
        "c3": {"0.1": "returns"},
    }
    results = _study(tmp_path, scheduler, qualities=[0.9, 0.8, 0.7, 0.6, 0.5, 0.3], behaviour=behaviour).fit()
    assert [_runs(tmp_path, f"c{place}") for place in range(6)] == [
        [0.1], [0.1, 0.3], [0.1, 0.3], [0.1], RATIOS, [0.1],
    ]  # fmt: skip
    assert [_candidate(scheduler, place).reason for place in range(6)] == [
        "no score at 10 %", "it failed", "it ended by itself", "it ended by itself", None,
        "no better than the trivial baseline 0.3 at 10 %",
    ]  # fmt: skip
    assert len(results.errors) == 1
    assert _winner(scheduler, results) == "c4"


@pytest.mark.slow
def test_a_trial_that_tune_starts_again_keeps_its_place_and_one_that_left_takes_none(ray_cluster, tmp_path):
    scheduler = _scheduler(reduction=3)
    behaviour = {"c1": {"0.1": "stops"}, "c0": {"0.3": "fails once"}}
    results = _study(tmp_path, scheduler, behaviour=behaviour, failures=1).fit()
    assert not results.errors
    assert _runs(tmp_path, "c0") == [0.1, 0.3, 0.3, 1.0]
    assert (_runs(tmp_path, "c1"), _runs(tmp_path, "c2")) == ([0.1], [0.1])
    assert _candidate(scheduler, 1).scores == [0.9]
    assert _winner(scheduler, results) == "c0"


def test_more_trials_than_fit_run_one_after_the_other_without_a_deadlock(ray_cluster, tmp_path):
    watch = _Watch()
    whole = {"cpu": ray_cluster.nodes[0]["CPU"]}
    scheduler = _scheduler()
    results = _study(tmp_path, scheduler, resources=whole, callbacks=[watch]).fit()
    assert watch.most == 1
    assert _winner(scheduler, results) == "c1"


@pytest.mark.slow
def test_max_running_holds_from_the_first_trial_on_and_nobody_waits_for_those_that_never_come(
    ray_cluster, tmp_path
):
    watch = _Watch()
    scheduler = _scheduler(7, ratios=RATIOS[:2], max_running=1)
    nothing = tune.PlacementGroupFactory([{"memory": 1024.0 * 1024}])
    results = _study(tmp_path, scheduler, resources=nothing, seconds=1.0, callbacks=[watch]).fit()
    assert watch.most == 1
    assert [_runs(tmp_path, f"c{place}") for place in range(3)] == [[0.1], [0.1, 0.3], [0.1]]
    assert _winner(scheduler, results) == "c1"


class _Interrupt(tune.Callback):
    """Saves the scheduler after every result, and ends Tune once, at the n-th result that ends a ratio.

    Either at the very result, whose checkpoint Tune does not know of yet, or as soon as it does.
    """

    def __init__(self, scheduler, path, *, number, at_once):
        self.scheduler, self.path, self.number, self.at_once = scheduler, path, number, at_once

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.scheduler.save(str(self.path / "scheduler.json"))
        if "data_ratio" in result:
            self.number -= 1
            if self.at_once:
                self._end()

    def on_step_end(self, iteration, trials, **info):
        if not any(trial.status == "RUNNING" for trial in trials):
            self._end()

    def _end(self):
        if self.number <= 0 and not (self.path / "interrupted").exists():
            (self.path / "interrupted").touch()
            raise RuntimeError("interrupted")


def _resumed(path, scheduler, resources, *, train=_train, **settings):
    """Go on with an interrupted study: Tune's own copy of the scheduler, or the one given."""
    train, folder = tune.with_resources(train, resources), path / "tune" / "study"
    if scheduler is None:
        return tune.Tuner.restore(str(folder), train, **settings).fit()
    scheduler.restore(str(path / "scheduler.json"))
    return tune.ResultGrid(
        tune.run(
            train,
            name=folder.name,
            storage_path=str(folder.parent),
            resume=True,
            scheduler=scheduler,
            reuse_actors=True,
            verbose=0,
        )
    )


@pytest.mark.parametrize(
    ("way", "number", "at_once"),
    [
        pytest.param("snapshot", 4, False, marks=pytest.mark.slow),
        ("file", 4, True),
        pytest.param("file", 3, False, marks=pytest.mark.slow),
        pytest.param("file", 5, True, marks=pytest.mark.slow),
        pytest.param("snapshot", 1, True, marks=pytest.mark.slow),
        pytest.param("snapshot", 3, True, marks=pytest.mark.slow),
    ],
)
def test_after_an_interruption_nothing_finished_is_run_again_and_the_winner_is_the_same(
    way, number, at_once, ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    whole = {"cpu": ray_cluster.nodes[0]["CPU"]}
    first = _scheduler(reduction=3)
    callbacks = [_Interrupt(first, tmp_path, number=number, at_once=at_once)]
    if way == "snapshot":
        callbacks.append(KeepProgress(first))
    with pytest.raises((RuntimeError, TuneError), match="interrupted"):
        _study(tmp_path, first, resources=whole, callbacks=callbacks).fit()
    assert len(_all_runs(tmp_path)) == number

    second = None if way == "snapshot" else _scheduler(reduction=3)
    results = _resumed(tmp_path, second, whole)
    best = max(results, key=lambda result: result.metrics["score"])
    assert best.config["name"] == "c1"
    assert best.metrics["score"] == pytest.approx(1.1)
    ran = _all_runs(tmp_path)
    once = [("c0", 0.1), ("c1", 0.1), ("c1", 0.3), ("c1", 1.0), ("c2", 0.1)]
    # The one whose checkpoint was still on its way is the only one to run again.
    assert sorted(set(ran)) == once
    assert len(ran) == len(once) + at_once
    assert not at_once or ran.count(ran[number - 1]) == 2
    if second is not None:
        assert second.race.is_over
        assert _winner(second, results) == "c1"


@pytest.mark.slow
def test_a_state_that_is_ahead_of_all_that_tune_knows_is_made_good(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "1000")
    whole = {"cpu": ray_cluster.nodes[0]["CPU"]}
    first, second = _scheduler(reduction=3), _scheduler(reduction=3)
    callbacks = [_Interrupt(first, tmp_path, number=4, at_once=True)]
    with pytest.raises((RuntimeError, TuneError), match="interrupted"):
        _study(tmp_path, first, resources=whole, callbacks=callbacks).fit()
    results = _resumed(tmp_path, second, whole)
    assert _winner(second, results) == "c1"
    assert _runs(tmp_path, "c1") == [0.1, 0.3, *RATIOS]


def _train_on_two_workers(config):
    """Train one ratio in two worker processes of a nested trainer."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    def work(settings):
        from ray import train

        rank = train.get_context().get_world_rank()
        half = settings["quality"] / train.get_context().get_world_size()
        (Path(settings["folder"]) / f"{rank}.json").write_text(json.dumps(half))

    checkpoint, seen = tune.get_checkpoint(), []
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            seen = json.loads((Path(folder) / "seen.json").read_text())
    append_json_line(
        Path(config["log"]) / f"{config['name']}.jsonl",
        {"ratio": config["data_ratio"], "seen": seen, "pid": os.getpid()},
    )
    shared = Path(config["log"]) / config["name"] / str(config["data_ratio"])
    shared.mkdir(parents=True)
    DataParallelTrainer(
        work,
        train_loop_config={"quality": config["quality"] + 0.1 * len(seen), "folder": str(shared)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name="nested", storage_path=str(shared), failure_config=FailureConfig(max_failures=0)
        ),
    ).fit()
    halves = [json.loads((shared / f"{rank}.json").read_text()) for rank in range(2)]
    (shared / "seen.json").write_text(json.dumps([*seen, config["data_ratio"]]))
    (shared / "checkpoint").mkdir()
    (shared / "seen.json").rename(shared / "checkpoint" / "seen.json")
    tune.report(
        {"score": sum(halves), "data_ratio": config["data_ratio"]},
        checkpoint=tune.Checkpoint.from_directory(shared / "checkpoint"),
    )


@pytest.mark.slow
def test_trials_of_two_workers_pick_the_same_winner(ray_cluster, tmp_path):
    watch = _Watch()
    scheduler = _scheduler(reduction=3, ratios=RATIOS[:2], max_running=1)
    waiting = tune.PlacementGroupFactory([{"memory": 1024.0 * 1024}])
    results = _study(
        tmp_path, scheduler, train=_train_on_two_workers, resources=waiting, reuse=False, callbacks=[watch]
    ).fit()
    assert not results.errors
    assert watch.most == 1
    assert [_runs(tmp_path, f"c{place}") for place in range(3)] == [[0.1], [0.1, 0.3], [0.1]]
    assert _winner(scheduler, results) == "c1"
    assert _candidate(scheduler, 1).scores == pytest.approx([0.9, 1.0])


class _Class(tune.Trainable):
    """A trainable as a class: a step is a ratio, with a result of progress before it."""

    def setup(self, config):
        self.seen, self.is_begun = [], False

    def step(self):
        if not self.is_begun:
            self.is_begun = True
            return {"progress": 0.0}
        self.is_begun = False
        append_json_line(
            Path(self.config["log"]) / f"{self.config['name']}.jsonl",
            {
                "name": self.config["name"],
                "ratio": self.config["data_ratio"],
                "seen": self.seen,
                "time": time.time(),
            },
        )
        self.seen = [*self.seen, self.config["data_ratio"]]
        score = self.config["quality"] + 0.1 * len(self.seen)
        return {"score": score, "data_ratio": self.config["data_ratio"]}

    def save_checkpoint(self, checkpoint_dir):
        (Path(checkpoint_dir) / "seen.json").write_text(json.dumps(self.seen))

    def load_checkpoint(self, checkpoint):
        self.seen = json.loads((Path(checkpoint) / "seen.json").read_text())

    def reset_config(self, new_config):
        self.setup(new_config)
        return True


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False])
def test_a_class_is_as_good_as_a_function_also_after_an_interruption(
    at_once, ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    whole = {"cpu": ray_cluster.nodes[0]["CPU"]}
    first = _scheduler(reduction=3)
    callbacks = [KeepProgress(first), _Interrupt(first, tmp_path, number=4, at_once=at_once)]
    with pytest.raises((RuntimeError, TuneError), match="interrupted"):
        _study(tmp_path, first, train=_Class, resources=whole, callbacks=callbacks).fit()
    results = _resumed(tmp_path, None, whole, train=_Class)
    assert not results.errors
    assert _runs(tmp_path, "c1") == ([0.1, 0.3, 0.3, 1.0] if at_once else RATIOS)
    assert (_runs(tmp_path, "c0"), _runs(tmp_path, "c2")) == ([0.1], [0.1])


@pytest.mark.slow
def test_a_failed_trial_that_is_resumed_goes_on_from_where_it_failed(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    whole = {"cpu": ray_cluster.nodes[0]["CPU"]}
    first = _scheduler(reduction=1)
    behaviour = {"c1": {"0.3": "fails once"}}
    study = _study(tmp_path, first, resources=whole, behaviour=behaviour, callbacks=[KeepProgress(first)])
    assert len(study.fit().errors) == 1
    results = _resumed(tmp_path, None, whole, resume_errored=True)
    assert not results.errors
    assert _runs(tmp_path, "c1") == [0.1, 0.3, 0.3, 1.0]
    assert (_runs(tmp_path, "c0"), _runs(tmp_path, "c2")) == (RATIOS, RATIOS)


@pytest.mark.parametrize("ratios", [[], [0.3, 0.1], [0.1, 0.1], [0.0, 1.0], [0.5, 1.5]])
def test_ratios_that_do_not_rise_within_0_and_1_are_refused(ratios):
    with pytest.raises(ValueError, match=r"ratio|rungs"):
        _scheduler(ratios=ratios)


def test_nothing_is_decided_without_a_trial_that_was_interrupted():
    class Controller:
        def __init__(self, trials):
            self.get_trials = lambda: trials

    scheduler = _scheduler(num_candidates=2, reduction=2)
    trials = [Trial("trainable", config={"candidate": place}, stub=True) for place in range(2)]
    controller = Controller(trials)
    for trial in trials:
        scheduler.on_trial_add(controller, trial)
    scheduler.on_trial_result(controller, trials[0], {"data_ratio": RATIOS[0], "score": 0.5})
    scheduler.on_trial_result(controller, trials[1], {"interrupted": True})
    scheduler.on_trial_complete(controller, trials[1], {"interrupted": True})
    assert [scheduler.candidate(trial).state for trial in trials] == ["waiting", "running"]
    assert scheduler.race.decided == 0
    # One that only returned is out, and the other goes on.
    scheduler.on_trial_complete(controller, trials[1], {})
    assert [scheduler.candidate(trial).state for trial in trials] == ["running", "out"]


def test_a_state_of_other_ratios_is_refused(tmp_path):
    file = str(tmp_path / "scheduler.json")
    _scheduler(ratios=[0.5, 1.0]).save(file)
    with pytest.raises(ValueError, match=r"is of the ratios \[0.5, 1.0\], not"):
        _scheduler().restore(file)


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"data_ratio": 0.2, "score": 1.0}, "none of"),
        ({"data_ratio": 0.1, "score": 1.0}, "has no 'trivial' as the baseline"),
    ],
)
def test_a_result_that_cannot_be_meant_ends_the_study_with_what_is_wrong(result, problem):
    scheduler = _scheduler(baseline="trivial")
    trial = Trial("any", stub=True, trial_id="one")
    scheduler.race.join("one")
    with pytest.raises(ValueError, match=problem):
        scheduler.on_trial_result(None, trial, result)
