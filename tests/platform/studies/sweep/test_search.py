"""The search by itself, on an objective whose best point is known: no model, real Tune, real storage."""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import signal
import time

import optuna
import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from dure.config.spaces import SearchSpace
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.outputs import refuse_links
from dure.runs.folder import RunResult
from dure.runtime.cluster import cluster
from dure.signals import STOP_FILE, Interrupted
from dure.studies.sweep import optuna_study
from dure.studies.sweep.optuna_study import JOURNAL, open_study
from dure.studies.sweep.plan import SweepMetric, SweepStudy
from dure.studies.sweep.search import SweepSearch
from dure.studies.sweep.strategy import unbeaten

LOSS = Metric("eval_loss", "min")

LR = "training.learning_rate"
BEST = 3e-4
SPACE = SearchSpace.model_validate({"parameters": {LR: {"type": "log_uniform", "low": 1e-5, "high": 1e-2}}})
PAIR = SearchSpace.model_validate(
    {
        "parameters": {
            LR: {"type": "log_uniform", "low": 1e-5, "high": 1e-2},
            "training.weight_decay": {"type": "uniform", "low": 0.0, "high": 0.2},
        }
    }
)
WITHIN = 0.1 * math.log10(1e-2 / 1e-5)
"""A tenth of the range, in powers of ten."""


def sweep(**values) -> SweepStudy:
    values = {
        "name": "known",
        "experiment": "kobart_baseline",
        "space": SPACE,
        "metrics": [SweepMetric(name="eval_loss", direction="min")],
    } | values
    return SweepStudy(**values)


def loss_at(rate: float, samples: int = 64) -> float:
    """A bowl in the logarithm of the rate, reached like a learning curve; too large rates diverge."""
    return math.log10(rate / BEST) ** 2 + 8 / samples


def short(config):
    tune.report({"eval_loss": loss_at(config[LR]), "samples": 64})


def objective(config):
    for samples in (8, 16, 32, 64):
        loss = loss_at(config[LR], samples) + config.get("training.weight_decay", 0.1) - 0.1
        tune.report({"eval_loss": loss, "samples": samples})


def run(search, num_samples, trainable=objective, scheduler=None, path=None):
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.1}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=num_samples,
            scheduler=scheduler,
            max_concurrent_trials=1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(path), verbose=0),
    ).fit()


@pytest.fixture(scope="module")
def ray(ray_address):
    with cluster(ray_address) as running:
        yield running


def plain(path) -> optuna.Study:
    """Open the search with nothing but Optuna."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path / JOURNAL)))
    return optuna.load_study(study_name=None, storage=storage)


def test_a_search_goes_on_at_once_after_a_kill_in_the_middle_of_writing(tmp_path):
    SweepSearch(sweep(), tmp_path).suggest("first")
    child = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / f"{JOURNAL}.lock").exists()
    refuse_links(tmp_path)
    begin = time.monotonic()
    assert LR in SweepSearch(sweep(), tmp_path).suggest("next")
    assert time.monotonic() - begin < 15  # Optuna itself waits for half a minute


def _killed_while_writing(path):
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    SweepSearch(sweep(), path).suggest("second")


@pytest.mark.parametrize("sampler", ["random", "qmc", "gp", "grid"])
def test_every_sampler_finds_the_best_rate_in_30_trials(sampler, tmp_path):
    search = SweepSearch(sweep(sampler=sampler, num_trials=30), tmp_path)
    for place in range(30):
        rate = search.suggest(f"a{place}")[LR]
        search.on_trial_complete(f"a{place}", {"eval_loss": loss_at(rate), "samples": 64})
    assert_best_was_found(tmp_path)


def test_the_search_finds_the_best_rate_in_30_trials_of_tune(ray, tmp_path):
    run(SweepSearch(sweep(num_trials=30), tmp_path), 30, trainable=short, path=tmp_path / "tune")
    assert_best_was_found(tmp_path)


def assert_best_was_found(path):
    study = plain(path)
    assert len(study.trials) == 30
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    assert abs(math.log10(study.best_params[LR] / BEST)) < WITHIN
    best = study.best_trial
    assert best.value == pytest.approx(loss_at(best.params[LR]))


@pytest.mark.skipif(importlib.util.find_spec("cmaes") is None, reason="cmaes is not installed")
def test_cma_es_finds_the_best_rate_among_two_parameters(ray, tmp_path):
    search = SweepSearch(sweep(sampler="cmaes", num_trials=30, space=PAIR), tmp_path)
    run(search, 30, path=tmp_path / "tune")
    assert abs(math.log10(plain(tmp_path).best_params[LR] / BEST)) < WITHIN


def test_cma_es_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="this space has 1"):
        SweepSearch(sweep(sampler="cmaes"), tmp_path)
    if importlib.util.find_spec("cmaes") is None:
        with pytest.raises(UserError, match="'cmaes' is not installed"):
            SweepSearch(sweep(sampler="cmaes", space=PAIR), tmp_path)


def test_a_scheduler_stops_bad_trials_by_samples_and_they_count_as_pruned(ray, tmp_path):
    finished: set[str] = set()

    def judge(name):
        return RunResult("x", "completed") if name in finished else None

    class Noting(SweepSearch):
        def on_trial_result(self, trial_id, result):
            super().on_trial_result(trial_id, result)
            if result["samples"] == 64:
                finished.add(result["config/trial"])

    scheduler = ASHAScheduler(
        time_attr="samples", metric="eval_loss", mode="min", grace_period=8, reduction_factor=2, max_t=128
    )
    search = Noting(sweep(sampler="grid", num_trials=9), tmp_path, judge=judge)
    run(search, 9, scheduler=scheduler, path=tmp_path / "tune")
    states = {trial.params[LR]: trial.state.name for trial in plain(tmp_path).trials}
    assert states[1e-2] == "PRUNED"
    best = plain(tmp_path).best_trial
    assert best.intermediate_values == {
        samples: loss_at(best.params[LR], samples) for samples in (8, 16, 32, 64)
    }
    assert states[min(states, key=loss_at)] == "COMPLETE"
    pruned = [trial for trial in plain(tmp_path).trials if trial.state.name == "PRUNED"]
    assert all(max(trial.intermediate_values) < 64 for trial in pruned)


def test_known_points_come_first(tmp_path):
    search = SweepSearch(sweep(tries=({LR: 1e-4}, {LR: 2e-3}), num_trials=3), tmp_path)
    rates = [search.suggest(f"id{place}")[LR] for place in range(3)]
    assert rates[:2] == [1e-4, 2e-3]
    assert search.suggest("id3") == "FINISHED"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, {"num_trials": 2, "tries": tuple({LR: rate} for rate in (1e-4, 2e-4, 4e-4))}),
        ({"num_trials": 2}, {"num_trials": 2, "tries": ({LR: 5e-4},)}),
        ({"sampler": "grid", "num_trials": 5}, {"sampler": "grid", "num_trials": 7}),
    ],
    ids=["more first points than trials", "a first point for a finished sweep", "a finer grid"],
)
def test_every_point_that_is_asked_for_is_tried(before, after, tmp_path):
    tried = [] if before is None else _all_tried(sweep(**before), tmp_path)
    study = sweep(**after)
    asked = study.grid() if study.sampler == "grid" else study.tries
    num_points = SweepSearch(study, tmp_path).num_points
    tried += _all_tried(study, tmp_path)
    assert {point[LR] for point in asked} <= set(tried)
    assert len(tried) == len(set(tried)) == num_points
    assert not _all_tried(study, tmp_path)


def _all_tried(study, path):
    search, rates = SweepSearch(study, path), []
    while (config := search.suggest(f"id{len(rates)}")) != "FINISHED":
        rates.append(config[LR])
        search.on_trial_complete(f"id{len(rates) - 1}", {"eval_loss": loss_at(rates[-1])})
    return rates


def test_a_search_goes_on_in_a_folder_that_was_renamed(tmp_path):
    tried = _all_tried(sweep(num_trials=3), tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    search = SweepSearch(sweep(num_trials=3), tmp_path / "after")
    assert [point[LR] for point in search.points().values()] == tried
    assert search.suggest("next") == "FINISHED"


def test_a_point_outside_of_the_space_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"from 1e-05 to 0\.01"):
        SweepSearch(sweep(tries=({LR: 0.5},)), tmp_path)
    with pytest.raises(UserError, match=r"'lora\.rank' is not searched"):
        SweepSearch(sweep(tries=({"lora.rank": 8},)), tmp_path)


def test_a_killed_search_keeps_what_finished_and_continues_what_ran(tmp_path):
    first = SweepSearch(sweep(num_trials=8, sampler="random"), tmp_path)
    begun = [first.suggest(f"a{place}") for place in range(5)]
    for place in range(3):
        first.on_trial_complete(f"a{place}", {"eval_loss": loss_at(begun[place][LR]), "samples": 64})
    del first  # the driver is killed with two trials running

    second = SweepSearch(sweep(num_trials=8, sampler="random"), tmp_path)
    again = [second.suggest(f"b{place}") for place in range(5)]
    assert again[:2] == begun[3:]
    assert [config["trial"] for config in again] == [f"trial_{place:03d}" for place in range(3, 8)]
    assert len({config[LR] for config in (*begun, *again)}) == 8, "no point was drawn twice"
    assert second.suggest("b5") == "FINISHED"
    for place, config in enumerate(again):
        second.on_trial_complete(f"b{place}", {"eval_loss": loss_at(config[LR]), "samples": 64})

    more = SweepSearch(sweep(num_trials=10, sampler="random"), tmp_path)
    assert more.suggest("c0")["trial"] == "trial_008"


SAMPLERS = [
    "tpe", "random", "qmc", "gp", "grid",
    pytest.param(
        "cmaes",
        marks=pytest.mark.skipif(importlib.util.find_spec("cmaes") is None, reason="cmaes is not installed"),
    ),
]  # fmt: skip


def end(search, trial_id, config):
    """Report a curve and end a trial as it would: large rates diverge, bad ones are stopped half-way."""
    loss = loss_at(config[LR]) + config["training.weight_decay"]
    search.verdict = RunResult("x", "completed", {"eval_loss": loss})
    for samples in (8, 16, 32, 64):
        search.on_trial_result(trial_id, {"eval_loss": loss + 8 / samples, "samples": samples})
        if loss > 1.0 and samples == 16:
            search.verdict = RunResult("x", "stopped") if config[LR] < 3e-3 else RunResult("x", "diverged")
            break
    search.on_trial_complete(trial_id)


class Judged(SweepSearch):
    """A search whose trials end as the test says."""

    verdict = None

    def __init__(self, sweep, path):
        super().__init__(sweep, path, judge=lambda name: self.verdict)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_proposes_the_same_points_however_often_it_is_cut(sampler, tmp_path):
    plan = sweep(sampler=sampler, space=PAIR, num_trials=4 if sampler == "grid" else 16, tries=({LR: 1e-4},))
    alone, whole = Judged(plan, tmp_path / "alone"), []
    for place in range(plan.budget):
        whole.append(alone.suggest(f"a{place}"))
        end(alone, f"a{place}", whole[-1])
    assert len({config["training.weight_decay"] for config in whole}) >= min(plan.budget, 4)

    # Killed, stopped, or ended in order between any two points.
    cut = []
    for place in range(plan.budget):
        killed = Judged(plan, tmp_path / "cut")
        begun = killed.suggest("b0")
        if place % 3 == 1:
            del killed
        elif place % 3 == 2:
            killed.verdict = RunResult("x", "interrupted")
            killed.on_trial_complete("b0", {"eval_loss": 9.0, "samples": 4})
        if place % 3:
            assert [each.state.name for each in plain(tmp_path / "cut").trials].count("RUNNING") == 1
            killed = Judged(plan, tmp_path / "cut")
            assert killed.suggest("c0") == begun, "it goes on with its own values"
            end(killed, "c0", begun)
        else:
            end(killed, "b0", begun)
        cut.append(begun)
    assert cut == whole
    last = Judged(plan, tmp_path / "cut")
    assert last.suggest("d0") == "FINISHED"
    ended = [
        [(each.values, each.params) for each in plain(tmp_path / name).trials] for name in ("alone", "cut")
    ]
    assert ended[0] == ended[1]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
@pytest.mark.parametrize("num_values", [0, 1])
def test_a_kill_while_a_point_is_written_changes_no_point(sampler, num_values, tmp_path):
    plan = sweep(sampler=sampler, space=PAIR, num_trials=12)
    alone, whole = Judged(plan, tmp_path / "alone"), []
    for place in range(12):
        whole.append(alone.suggest(f"a{place}"))
        end(alone, f"a{place}", whole[-1])
    cut = []
    for place in range(12):
        if place in (3, 11):
            study = open_study(plan, tmp_path / "cut", [each.metric for each in plan.metrics])
            study.sampler = optuna_study.sampler(plan, place=place)
            trial = study.ask()
            for key in list(PAIR.ordered())[:num_values]:
                kind = PAIR.parameters[key]
                trial.suggest_float(key, kind.low, kind.high, log=kind.type == "log_uniform")
        search = Judged(plan, tmp_path / "cut")
        cut.append(search.suggest("b0"))
        end(search, "b0", cut[-1])
    assert cut == whole


def test_other_seeds_draw_other_points(tmp_path):
    points = [
        SweepSearch(sweep(sampler="random", seed=seed), tmp_path / str(seed)).suggest("a")[LR]
        for seed in (1, 2)
    ]
    second = SweepSearch(sweep(sampler="random", seed=1), tmp_path / "1")
    second.suggest("a")
    points.append(second.suggest("b")[LR])
    assert len(set(points)) == 3


def test_nothing_is_proposed_once_a_stop_was_asked_for(tmp_path):
    search = SweepSearch(sweep(num_trials=3, sampler="random"), tmp_path)
    search.suggest("a0")
    (tmp_path / STOP_FILE).touch()
    assert search.suggest("a1") is None
    search.on_trial_complete("a0", {"eval_loss": 1.0, "samples": 64})
    with pytest.raises(Interrupted):
        search.suggest("a1")
    assert len(plain(tmp_path).trials) == 1
    (tmp_path / STOP_FILE).unlink()
    assert search.suggest("a1")["trial"] == "trial_001"


def test_what_ended_while_the_driver_was_dying_is_told_by_its_trace(tmp_path):
    first = SweepSearch(sweep(num_trials=2), tmp_path)
    first.suggest("a0")
    verdict = RunResult("x", "completed", {"eval_loss": 0.25})
    second = SweepSearch(sweep(num_trials=2), tmp_path, judge=lambda name: verdict)
    assert plain(tmp_path).trials[0].value == 0.25
    assert second.suggest("b0")["trial"] == "trial_001"


def test_a_failed_point_is_tried_again_in_its_folder_by_the_next_session(tmp_path):
    first = SweepSearch(sweep(num_trials=2), tmp_path)
    config = first.suggest("a0")
    first.on_trial_complete("a0", None, error=True)
    second = SweepSearch(sweep(num_trials=2), tmp_path)
    assert second.suggest("b0") == config
    assert second.suggest("b1")["trial"] == "trial_001"
    assert second.suggest("b2") == "FINISHED"


def test_a_diverged_trial_counts_as_worst_and_the_search_leaves_its_neighbourhood(tmp_path):
    verdicts, later = {}, []
    for seed in range(4):
        search = SweepSearch(
            sweep(num_trials=40, seed=seed, metrics=[SweepMetric(name="eval_f1", direction="max")]),
            tmp_path / str(seed),
            judge=lambda name: RunResult(name, *verdicts[name]),
        )
        rates = []
        for place in range(40):
            config = search.suggest(f"a{place}")
            rates.append(config[LR])
            good = {"eval_f1": 1 - abs(math.log10(config[LR] / BEST)) / 3}
            verdicts[config["trial"]] = ("diverged", {}) if config[LR] > 1e-3 else ("completed", good)
            search.on_trial_complete(f"a{place}")
        study = plain(tmp_path / str(seed))
        assert {trial.value for trial in study.trials if trial.params[LR] > 1e-3} == {-math.inf}
        later += rates[20:]
    # A third of the range diverges. Over 80 seeds 3.0 of the last 20 points did, with a deviation of 1.0.
    assert sum(rate > 1e-3 for rate in later) < len(later) / 3 / 2


def test_several_metrics_make_a_front(tmp_path):
    metrics = [SweepMetric(name="eval_f1", direction="max"), SweepMetric(name="seconds", direction="min")]
    search = SweepSearch(sweep(num_trials=3, metrics=metrics), tmp_path)
    for place, (f1, seconds) in enumerate([(0.9, 30.0), (0.8, 10.0), (0.7, 20.0)]):
        search.suggest(f"a{place}")
        search.on_trial_complete(f"a{place}", {"eval_f1": f1, "seconds": seconds})
    assert {trial.number for trial in plain(tmp_path).best_trials} == {0, 1}
    assert unbeaten({"a": [-0.9, 30.0], "b": [-0.8, 10.0], "c": [-0.7, 20.0]}) == ["a", "b"]


def test_conditional_parameters_are_only_drawn_where_they_count(tmp_path):
    space = SearchSpace.model_validate(
        {
            "parameters": {
                "training.warmup_ratio": {
                    "type": "uniform", "low": 0, "high": 0.2, "when": {"training.scheduler": ["linear"]},
                },
                "training.scheduler": {"type": "choice", "values": ["linear", "constant"]},
                "lora.targets": {"type": "choice", "values": [["q"], ["q", "v"]]},
                "lora.rank": {"type": "int", "low": 4, "high": 64, "log": True},
            }
        }
    )  # fmt: skip
    search = SweepSearch(sweep(space=space, num_trials=20, seed=1), tmp_path)
    for place in range(20):
        config = search.suggest(f"a{place}")
        assert ("training.warmup_ratio" in config) == (config["training.scheduler"] == "linear")
        assert config["lora.targets"] in (["q"], ["q", "v"])
        assert 4 <= config["lora.rank"] <= 64
        search.on_trial_complete(f"a{place}", {"eval_loss": float(place)})
    assert search.points()["trial_000"].keys() <= set(space.parameters)


def test_a_database_keeps_the_search_too(tmp_path):
    url = f"sqlite:///{tmp_path / 'sweeps.db'}"
    search = SweepSearch(sweep(storage=url, num_trials=1), tmp_path)
    search.suggest("a0")
    search.on_trial_complete("a0", {"eval_loss": 1.0})
    assert optuna.load_study(study_name=f"known-{tmp_path.name}", storage=url).best_value == 1.0
    with pytest.raises(UserError, match="--storage"):
        open_study(sweep(storage="nonsense://nowhere"), tmp_path, [LOSS])
    other = sweep(storage=url, metrics=[SweepMetric(name="eval_f1", direction="max")])
    with pytest.raises(UserError, match="other directions"):
        open_study(other, tmp_path, [each.metric for each in other.metrics])
