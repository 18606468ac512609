"""Repeated runs of a batch: their names and seeds, means, deviations, and the paired comparison of settings."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from dure.config.loading import dump_yaml
from dure.errors import UserError
from dure.events import TrialStatus
from dure.files import write_json, write_text
from dure.metrics.metric import Metric
from dure.reporting.columns import plain_text
from dure.runs.folder import RunFolder, RunResult
from dure.studies.batch.driver import BatchKind
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.planning import plan_batch
from dure.studies.batch.report import BatchView, paired_sentences
from dure.studies.batch.results import BatchResults
from dure.studies.batch.strategy import Batch, best_setting, comparisons_of, settings_of

ACCURACY = Metric("eval_accuracy", "max", "share")
FIRST, SECOND = [0.80, 0.83, 0.79, 0.84, 0.81], [0.78, 0.80, 0.78, 0.80, 0.79]


@pytest.fixture
def study():
    return BatchStudy(name="two", experiments=("a", "b"), metrics=("eval_accuracy",), seeds=5)


def named(tiny, name):
    return tiny("bert", "full").with_({"experiment.name": name})


def statuses(study, experiments, scores, baseline=0.5):
    runs = [run for each in experiments for run in study.runs_of(each)]
    return [
        TrialStatus(
            name=run.name,
            state="completed" if score is not None else "failed",
            path=Path(run.name),
            metrics={} if score is None else {"eval_accuracy": score, "baseline_accuracy": baseline},
        )
        for run, score in zip(runs, scores, strict=True)
    ]


def test_every_experiment_runs_by_the_seeds_from_its_own_on(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b").with_({"experiment.seed": 7})]
    trials = Batch(study, experiments).trials()
    assert [trial.name for trial in trials[:2]] == ["a-seed42", "a-seed43"]
    assert [trial.experiment.experiment.seed for trial in trials[5:]] == [7, 8, 9, 10, 11]
    assert len({trial.name for trial in trials}) == 10


def test_means_and_comparison_are_those_of_an_independent_reference(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b")]
    trials = statuses(study, experiments, [*FIRST, *SECOND])
    settings = settings_of(study, experiments, trials, [ACCURACY])
    assert settings[0].mean["eval_accuracy"] == pytest.approx(statistics.fmean(FIRST))
    assert settings[0].deviation["eval_accuracy"] == pytest.approx(statistics.stdev(FIRST))
    assert best_setting(settings, ACCURACY) == "a"
    (comparison,) = comparisons_of(settings, trials, ACCURACY)
    reference = ttest_rel(FIRST, SECOND)
    interval = reference.confidence_interval(0.95)
    assert comparison.p_value == pytest.approx(reference.pvalue)
    assert (comparison.low, comparison.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert (comparison.wins, comparison.losses, comparison.verdict) == (5, 0, "better")
    assert "a is better than b by 2.40 points" in comparison.sentence
    assert "5 seeds" in comparison.sentence


def test_equal_settings_are_a_tie(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b")]
    trials = statuses(study, experiments, [*FIRST, *FIRST[1:], FIRST[0]])
    (comparison,) = comparisons_of(settings_of(study, experiments, trials, [ACCURACY]), trials, ACCURACY)
    assert comparison.verdict == "tie"
    assert "cannot be told apart" in comparison.sentence


def test_nothing_is_best_that_lacks_a_score_or_does_not_beat_the_trivial_baseline(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b")]
    lacking = settings_of(
        study, experiments, statuses(study, experiments, [*FIRST[:4], None, *SECOND]), [ACCURACY]
    )
    assert best_setting(lacking, ACCURACY) == "b"
    assert lacking[0].num_scored == 4
    trials = statuses(study, experiments, [*FIRST, *SECOND], baseline=0.9)
    assert best_setting(settings_of(study, experiments, trials, [ACCURACY]), ACCURACY) is None


def test_a_run_whose_score_is_no_number_lacks_it_as_one_that_failed_does(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b")]
    trials = statuses(study, experiments, [*FIRST, *SECOND])
    trials[0] = replace(trials[0], metrics={"eval_loss": 0.1})
    settings = settings_of(study, experiments, trials, [ACCURACY])
    assert settings[0].num_scored == 4
    assert best_setting(settings, ACCURACY) == "b"


def recorded(study, experiments, trials):
    """The record of a batch with these trials."""
    rows = [
        {"name": each.name, "state": each.state, "metrics": dict(each.metrics), "error": None, "seconds": 1.0, "path": "x"}
        for each in trials
    ]  # fmt: skip
    return BatchResults.model_validate(
        {"study": "two", "kind": "batch", "path": "out", "state": "completed", "started": "now", "seconds": 9.0}
        | {"experiments": rows, **Batch(study, experiments).summary(trials)}
    )  # fmt: skip


def test_a_setting_that_lacks_a_seed_stands_behind_those_that_have_all(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b")]
    results = recorded(study, experiments, statuses(study, experiments, [*FIRST[:4], None, *SECOND]))
    text = plain_text(BatchKind.table(results))
    assert text.index("b  ") < text.index("a  ")
    sentences = BatchView.facts_of(results, Path())["sentences"]
    assert [each[:3] for each in sentences[:2]] == ["b: ", "a: "]


def test_the_table_shows_means_and_says_what_can_be_told_apart(tiny, study):
    experiments = [named(tiny, "a"), named(tiny, "b")]
    results = recorded(study, experiments, statuses(study, experiments, [*FIRST, *SECOND]))
    assert BatchResults.model_validate(results.as_json()) == results
    text = plain_text(BatchKind.table(results))
    assert "81.40 ± 2.07" in text
    assert "a is better than b" in text
    assert "trivial baseline: 50.00" in text


@pytest.mark.parametrize(
    ("limit", "tables", "seeds", "is_told"),
    [
        (None, "xx", (1, 2), False),
        (None, "xy", (1, 1), True),
        (6, "xx", (1, 1), False),
        (6, "xx", (1, 2), True),  # drawn from one table by two seeds
    ],
)
def test_scores_on_other_validation_rows_are_said_not_to_compare(
    limit, tables, seeds, is_told, tiny, tmp_path
):
    alone = BatchStudy(name="two", experiments=("a", "b"), metrics=("eval_accuracy",))
    experiments = [named(tiny, name).with_({"data.max_dev_rows": limit}) for name in "ab"]
    trials = []
    for experiment, table, seed in zip(experiments, tables, seeds, strict=True):
        folder = RunFolder(tmp_path / experiment.name)
        metrics = {"eval_accuracy": 0.8, "num_dev_rows": 6}
        write_text(folder.experiment, dump_yaml(experiment))
        write_json(folder.environment, {"data": {"train": "t", "dev": table}, "seed": seed})
        folder.write_result(RunResult(experiment.name, "completed", metrics))
        trials.append(TrialStatus(experiment.name, "completed", path=folder.path, metrics=metrics))
    results = recorded(alone, experiments, trials)
    rows = [each.with_values(path=f"out/{each.name}") for each in results.experiments]
    told = BatchView.facts_of(results.with_values(experiments=rows), tmp_path)["sentences"]
    assert ("compare only within each of these: a; b." in told[-1]) == is_told


def test_losses_of_other_kinds_are_not_compared_row_by_row(tmp_path):
    runs = {name: tmp_path / name for name in ("first", "alike", "other")}
    for name, beta, loss in (("first", 0.1, 0.2), ("alike", 0.1, 0.5), ("other", 0.5, 0.9)):
        folder = RunFolder(runs[name])
        write_json(folder.environment, {"data": {"test": "t"}})
        folder.write_result(RunResult(name, "completed", {"loss_kind": f"dpo with beta {beta}"}))
        rows = "".join(f"{row},{loss + row / 1000}\n" for row in range(50))
        write_text(folder.predictions, f"row,score_loss\n{rows}")
    (said,) = paired_sentences(runs, Metric("eval_reward_accuracy", "max", "share"))
    assert "first is better than alike" in said


def test_a_batch_goes_on_with_as_many_seeds_or_more(study):
    assert study.with_values(seeds=6).continued(study, "there").seeds == 6
    assert BatchStudy(name="two", experiments=("a", "b")).continued(study, "there").seeds == 5
    for before, seeds in ((study, 4), (BatchStudy(name="two", experiments=("a", "b")), 5)):
        with pytest.raises(UserError, match="--seeds") as caught:
            study.with_values(seeds=seeds).continued(before, "there")
        assert "leave it out (see there)" in caught.value.hint


def test_experiments_are_named_one_by_one_or_by_a_study():
    assert plan_batch(["transfer_bert", "transfer_distilbert"], seeds=3).seeds == 3
    assert len(plan_batch(["seven"]).experiments) == 7
    resolved = plan_batch(["transfer_bert"]).resolved(plan_batch(["transfer_bert"]).load())
    assert resolved.metrics[0] == "eval_macro_f1"
    with pytest.raises(UserError, match="is a study"):
        plan_batch(["seven", "transfer_bert"])
    with pytest.raises(UserError, match="--seeds"):
        plan_batch(["seven"], seeds=0)
