"""Cross-validation on real Ray and a tiny model: honest folds, one report, and an ensemble that predicts."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from dure import api
from dure.config import dump_yaml
from dure.errors import UserError
from dure.events import TrialStatus
from dure.family.run_weights import weights_at
from dure.files import write_text
from dure.reporting.columns import plain_text
from dure.runs.folder import RunFolder, RunResult
from dure.studies.crossval.driver import CrossvalKind, fold_runs
from dure.studies.crossval.plan import CrossvalStudy, plan_crossval
from dure.studies.crossval.results import CrossvalResults
from dure.studies.crossval.strategy import Crossval
from dure.studies.life_cycle import run_experiments
from dure.studies.results import TrialRecord
from dure.studies.study import read_results, stored_study
from trainables.samples.reviews import review_corpus

FOLDS = 2


def _named(experiment, name, **data):
    info = experiment.experiment.model_copy(update={"name": name})
    return experiment.model_copy(update={"experiment": info, "data": experiment.data.model_copy(update=data)})


def _rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def table(tmp_path):
    """Sixty reviews, a third of them doubled."""
    file = tmp_path / "reviews.csv"
    rows = [(review.text, review.label) for review in review_corpus()["train"][:45]]
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *rows, *rows[:15]])
    return file


def test_two_experiments_on_two_folds_are_judged_on_rows_that_they_never_saw(
    tiny, cpu, table, tmp_path, ray_address
):
    base = tiny("bert", "full", max_steps=2, best_metric="eval_accuracy")
    experiments = [
        _named(base, "one", train=str(table), max_dev_rows=None),
        _named(base, "two", train=str(table), max_dev_rows=None),
    ]
    study = plan_crossval(["one", "two"], folds=FOLDS)
    path = tmp_path / "study"
    record = run_experiments(study, experiments, profile=cpu, path=path, address=ray_address)
    results = record.as_json()

    assert results["state"] == "completed", results["trials"]
    assert [experiment["name"] for experiment in results["experiments"]] == ["one", "two"]
    texts = [row["text"] for row in _rows(table)]
    predictions = _rows(path / "one" / "oof_predictions.csv")
    assert [row["text"] for row in predictions] == texts
    assert list(predictions[0])[:4] == ["text", "label", "prediction", "fold"]
    # Both got the same folds, and equal texts share one.
    assert [row["fold"] for row in predictions] == [
        row["fold"] for row in _rows(path / "two" / "oof_predictions.csv")
    ]
    fold_of = {}
    for row in predictions:
        assert fold_of.setdefault(row["text"], row["fold"]) == row["fold"]
    one = results["experiments"][0]
    hits = [row["label"] == row["prediction"] for row in predictions]
    assert one["overall"]["accuracy"] == pytest.approx(sum(hits) / len(hits))
    folds = [each["metrics"]["accuracy"] for each in one["folds"]]
    assert one["mean"]["accuracy"] == pytest.approx(sum(folds) / FOLDS)
    assert sum(map(sum, one["confusion"]["counts"])) == len(texts)
    # The same settings and folds: no difference at all.
    assert results["comparisons"][0]["difference"]["value"] == 0.0
    assert (path / "two" / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert "one" in (path / "crossval_summary.txt").read_text(encoding="utf-8")
    assert json.loads((path / "crossval_results.json").read_text(encoding="utf-8")) == results
    assert read_results(path) == record

    # A second session runs nothing.
    before = {file: file.stat().st_mtime_ns for file in path.glob("*/fold_*/result.json")}
    assert len(before) == 2 * FOLDS
    run_experiments(stored_study(path, CrossvalStudy), experiments, profile=cpu, path=path, resume=True)
    assert {file: file.stat().st_mtime_ns for file in before} == before

    # The ensemble predicts the mean of its folds.
    ask = {"profile": cpu, "progress": lambda done, total: None, "notify": lambda line: None}
    outcome = api.predict(path / "one", table, tmp_path / "all.csv", **ask)
    assert len(outcome["models"]) == FOLDS
    parts = []
    for number in range(1, FOLDS + 1):
        file = tmp_path / f"{number}.csv"
        api.predict(path / "one", table, file, fold=number, **ask)
        parts.append(_rows(file))
    key = next(name for name in parts[0][0] if name.startswith("probability_"))
    for row, *folds in zip(_rows(tmp_path / "all.csv"), *parts, strict=True):
        assert float(row[key]) == pytest.approx(sum(float(fold[key]) for fold in folds) / FOLDS, abs=2e-6)
    with pytest.raises(UserError, match="no finished fold 9"):
        fold_runs(path / "one", 9)


def test_a_folder_of_several_experiments_folds_names_them(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "fold_1" / "final_model").mkdir(parents=True)
    with pytest.raises(UserError) as raised:
        weights_at(tmp_path)
    assert raised.value.hint == "one within it: one, two"


def test_results_have_one_shape_and_a_table_while_folds_run(tiny, tmp_path):
    experiments = [_named(tiny("bert"), "one"), _named(tiny("bert"), "two")]
    strategy = Crossval(plan_crossval(["one", "two"], folds=2), experiments, tmp_path)
    states = {
        "one.fold_1": "completed",
        "two.fold_1": "running",
        "one.fold_2": "pending",
        "two.fold_2": "pending",
    }
    bare = experiments[0].training.best_metric.removeprefix("eval_")
    trials = [
        TrialStatus(
            name=name,
            state=state,
            path=tmp_path / name.replace(".", "/"),
            metrics={"test_accuracy": 0.5, "eval_loss": 1.0, f"baseline_test_{bare}": 0.75},
        )
        for name, state in states.items()
    ]
    head = {
        "study": "s", "kind": "crossval", "path": str(tmp_path), "state": "interrupted",
        "started": "2026-01-01T00:00:00", "seconds": 1.0, "trials": [TrialRecord.of(each) for each in trials],
    }  # fmt: skip
    record = CrossvalResults.model_validate({**head, **strategy.summary(trials)})
    record.write(tmp_path / "crossval_results.json")
    assert CrossvalResults.read(tmp_path / "crossval_results.json") == record
    one, two = record.experiments
    assert [(fold.fold, fold.state, fold.metrics) for fold in one.folds] == [
        (1, "completed", {"accuracy": 0.5})
    ]
    assert one.baseline == 0.75, "that of the held-out rows, which the scores are of"
    assert [fold.state for fold in two.folds] == ["running"]
    assert len(record.trials) == 4
    assert "one: folds" in plain_text(CrossvalKind.table(record))
    # Only what has all its folds predicts, and a lone experiment has them in the folder of the study.
    assert CrossvalKind.next_commands(record) == ()
    ended = [replace(trials[0], name=trial.name, path=trial.path) for trial in trials[1::2]]
    write_text(RunFolder(ended[0].path).experiment, dump_yaml(experiments[1]))
    record = CrossvalResults.model_validate({**head, **strategy.summary([*trials[::2], *ended])})
    (command,) = CrossvalKind.next_commands(record)
    assert command == f'dure predict {tmp_path}/two --text "…"'
    write_text(RunFolder(tmp_path / "fold_1").experiment, dump_yaml(experiments[1]))
    ended = [replace(trial, path=tmp_path / trial.path.name) for trial in ended]
    lone = Crossval(plan_crossval(["two"], folds=2), experiments[1:], tmp_path).summary(ended)
    (command,) = CrossvalKind.next_commands(CrossvalResults.model_validate({**head, **lone}))
    assert command == f'dure predict {tmp_path} --text "…"'


@pytest.mark.slow
def test_a_finished_cross_validation_takes_a_further_experiment_and_does_nothing_again(
    tiny, cpu, table, tmp_path, ray_address
):
    base = tiny("bert", "full", max_steps=2, best_metric="eval_accuracy")
    one, two, three = (
        _named(base, name, train=str(table), max_dev_rows=None) for name in ("one", "two", "three")
    )
    there = {"profile": cpu, "path": tmp_path / "study", "address": ray_address}
    run_experiments(plan_crossval(["one", "two"], folds=FOLDS), [one, two], **there)
    results = sorted(there["path"].glob("*/fold_*/result.json"))
    before = {file: file.stat().st_mtime_ns for file in results}
    assert len(before) == 2 * FOLDS
    more = plan_crossval(["one", "two", "three"]).continued(
        stored_study(there["path"], CrossvalStudy), str(there["path"])
    )
    record = run_experiments(more, [one, two, three], resume=True, **there)
    assert {file: file.stat().st_mtime_ns for file in results} == before
    assert [(each["name"], len(each["folds"])) for each in record.as_json()["experiments"]] == [
        ("one", FOLDS), ("two", FOLDS), ("three", FOLDS)
    ]  # fmt: skip
    assert read_results(there["path"]) == record


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (["a", "b"], {"experiments": ["b", "a", "c"]}, "'experiments' cannot change"),
        (["a", "b"], {"experiments": ["a"]}, "'experiments' cannot change"),
        # The folds of a lone one lie where those of several have folders of their own.
        (["a"], {"experiments": ["a", "b"]}, "'experiments' cannot change"),
        (["a", "b"], {"experiments": ["a", "b"], "folds": 3}, "'folds' cannot change"),
    ],
)
def test_a_cross_validation_goes_on_with_the_experiments_and_folds_that_it_has(before, after, problem):
    study = plan_crossval(before, folds=FOLDS)
    with pytest.raises(UserError, match=problem):
        plan_crossval(**after).continued(study, "there")
    assert (
        plan_crossval(["a", "b", "c"]).continued(plan_crossval(["a", "b"], folds=FOLDS), "there").folds
        == FOLDS
    )


def test_what_is_clearly_worse_gets_no_further_folds(tiny, tmp_path):
    experiments = [_named(tiny("bert"), "good"), _named(tiny("bert"), "bad")]
    study = plan_crossval(["good", "bad"], folds=5, drop_worse=True)
    strategy = Crossval(study, experiments, tmp_path)
    plans = {plan.name: plan for plan in strategy.trials()}
    for number in (1, 2, 3):
        for name in ("good", "bad"):
            folder = RunFolder(tmp_path / plans[f"{name}.fold_{number}"].folder)
            metric = experiments[0].training.best_metric.replace("eval_", "test_")
            score = 0.75 + number / 100 if name == "good" else 0.5
            folder.write_result(RunResult(name, "completed", metrics={metric: score}))
    left = strategy.pending([name for name in plans if int(name[-1]) > 3])
    assert left == ["good.fold_4", "good.fold_5"]
    dropped = RunFolder(tmp_path / plans["bad.fold_4"].folder).read_result()
    assert (dropped.state, dropped.error) == ("stopped", "dropped: clearly worse than good on 3 folds")
    assert strategy.scores()["good"] == {1: 0.76, 2: 0.77, 3: 0.78}


def test_experiments_that_choose_checkpoints_by_other_metrics_are_dropped_by_one(tiny, tmp_path):
    experiments = [
        _named(tiny("bert", best_metric="eval_macro_f1"), "by_f1"),
        _named(tiny("bert", best_metric="eval_loss"), "by_loss"),
    ]
    strategy = Crossval(plan_crossval(["by_f1", "by_loss"], folds=5, drop_worse=True), experiments, tmp_path)
    plans = {plan.name: plan for plan in strategy.trials()}
    for name, scores in (("by_f1", (0.70, 0.71, 0.73)), ("by_loss", (0.81, 0.82, 0.83))):
        for number, score in enumerate(scores, 1):
            folder = RunFolder(tmp_path / plans[f"{name}.fold_{number}"].folder)
            metrics = {"test_macro_f1": score, "test_loss": 0.1 + number / 100}
            folder.write_result(RunResult(name, "completed", metrics=metrics))
    assert strategy.pending([name for name in plans if int(name[-1]) > 3]) == [
        "by_loss.fold_4",
        "by_loss.fold_5",
    ]
    assert strategy.scores()["by_loss"] == {1: 0.81, 2: 0.82, 3: 0.83}


def test_experiments_whose_long_names_end_differently_have_folds_of_their_own(tiny, tmp_path):
    names = [f"{'long' * 22}_{letter}" for letter in "ab"]
    study = plan_crossval(names, folds=FOLDS)
    strategy = Crossval(study, [_named(tiny("bert"), name) for name in names], tmp_path)
    plans = {plan.name: plan.folder for plan in strategy.trials()}
    assert len(set(plans.values())) == len(plans) == 2 * FOLDS


def test_a_plan_that_cannot_be_compared_is_refused(tiny, tmp_path):
    one = tiny("bert")
    with pytest.raises(UserError, match=r"data\.train of two is not that of one"):
        plan_crossval(["one", "two"]).resolved([_named(one, "one"), _named(one, "two", train="other.csv")])
    with pytest.raises(UserError, match=r"data\.max_dev_rows of two is not that of one"):
        plan_crossval(["one", "two"]).resolved([_named(one, "one"), _named(one, "two", max_dev_rows=9)])
    with pytest.raises(UserError, match="--folds"):
        plan_crossval(["one"], folds=1)
    with pytest.raises(UserError, match="no folder of a cross-validation"):
        stored_study(tmp_path, CrossvalStudy)
