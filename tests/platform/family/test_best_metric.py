"""What chooses the best checkpoint knows its direction by itself; a contradiction or a gap is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dure.config import load_experiment
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.events import TrialStatus
from dure.family import load_family
from dure.metrics.metric import Metric
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch, column_metrics
from dure.studies.comparable import compares
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.progressive.driver import ProgressiveKind
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.sweep.plan import SweepMetric, SweepStudy, judged_by, looked_for
from dure.studies.sweep.strategy import Sweep


def _red_heart(*overrides: str) -> Experiment:
    return load_experiment("red_heart_tiny", overrides)


@pytest.mark.parametrize(
    ("architecture", "name", "direction"),
    [
        ("bert", "eval_loss", "min"),
        ("bert", "eval_macro_f1", "max"),
        ("t5", "eval_rouge_sum", "max"),
        ("t5", "eval_num_empty_predictions", "min"),
    ],
)
def test_the_metric_alone_says_which_way_it_is_better(tiny, architecture, name, direction):
    assert load_family(tiny(architecture, best_metric=name)).best_metric.direction == direction


def test_errors_of_numbers_are_better_when_they_are_small():
    assert load_family(_red_heart("training.best_metric=eval_bentham_mae")).best_metric.direction == "min"
    assert load_family(_red_heart("training.best_metric=eval_loss_regret")).best_metric.direction == "min"


@pytest.mark.parametrize(("name", "said"), [("eval_loss", True), ("eval_accuracy", False)])
def test_a_contradiction_names_key_metric_and_remedy(tiny, name, said):
    family = load_family(tiny("bert", best_metric=name, higher_is_better=said))
    with pytest.raises(UserError) as caught:
        _ = family.best_metric
    message = str(caught.value)
    assert "training.higher_is_better" in message
    assert name in message
    assert ("lower is better" if said else "higher is better") in message
    assert "null" in message


def test_what_says_nothing_about_quality_needs_a_direction(tiny):
    name = "eval_mean_generated_tokens"
    with pytest.raises(UserError, match=r"training\.higher_is_better=true"):
        _ = load_family(tiny("t5", best_metric=name)).best_metric
    assert load_family(tiny("t5", best_metric=name, higher_is_better=False)).best_metric.direction == "min"


@pytest.mark.parametrize("name", ["eval_f1", "eval_f1[class]", "eval_f1[긍정]", "seconds"])
def test_a_figure_of_a_class_or_of_the_run_chooses_no_checkpoint(tiny, name):
    with pytest.raises(UserError, match=r"is no metric of trainables\.transfer"):
        _ = load_family(tiny("bert", best_metric=name)).best_metric


@pytest.mark.parametrize("declared", ['metric_names = ("eval_accuracy",)', 'metrics = ("eval_accuracy",)'])
def test_a_family_of_the_old_contract_is_told_what_to_declare(tiny, tmp_path, monkeypatch, declared):
    Path(tmp_path / "old_family.py").write_text(
        "from trainables.transfer import Transfer\n\n\n"
        f"class Old(Transfer):\n    metrics = None\n    {declared}\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "old_family", raising=False)
    with pytest.raises(UserError, match=r"does not declare its metrics.*\n?.*Metric\(") as caught:
        load_family(tiny("bert", family="old_family"))
    assert ("metric_names" in str(caught.value)) == declared.startswith("metric_names")


def _batch(metrics: tuple[str, ...], scores: dict[str, float | None]) -> dict:
    experiments = [_red_heart(f"experiment.name={name}") for name in scores]
    study = BatchStudy(name="b", experiments=tuple(scores), metrics=metrics)
    trials = [
        TrialStatus(name, "completed", Path(name), metrics={} if score is None else {metrics[0]: score})
        for name, score in scores.items()
    ]
    return dict(Batch(study, experiments).summary(trials))


def test_a_batch_ranked_by_an_error_names_the_smallest():
    summary = _batch(
        ("eval_bentham_mae", "eval_loss"), {"none": None, "high": 0.40, "low": 0.05, "nan": float("nan")}
    )
    assert summary["best"] == "low"
    assert summary["definitions"]["eval_bentham_mae"] == {"direction": "min", "unit": "number"}


@pytest.mark.parametrize("name", ["eval_rouge1", "eval_support[joy]", "eval_loss_"])
def test_a_batch_that_cannot_be_ranked_says_so_before_it_runs(name):
    with pytest.raises(UserError, match=r"cannot rank.*\n?.*eval_bentham_mae"):
        _batch((name,), {"a": 1.0})


def test_losses_of_other_tokens_or_objectives_have_no_best():
    causal, pairs, t5, kobart = map(
        load_experiment, ("causal_qwen", "preference_qwen", "eenzeenee_t5", "kobart_baseline")
    )
    bert, distilbert = map(load_experiment, ("transfer_bert", "transfer_distilbert"))
    stricter = pairs.with_({"task.beta": 0.5})
    for experiments, direction in (
        ([causal, pairs], None),
        ([t5, kobart], None),
        ([pairs, stricter], None),
        ([t5, t5], "min"),
        ([bert, distilbert], "min"),  # of the same classes, whatever the tokens
    ):
        first = load_family(experiments[0]).best_metric.name
        study = BatchStudy(name="b", experiments=("x", "y"), metrics=(first, "eval_loss"))
        assert column_metrics(study, experiments)[1].direction == direction
        by_loss = BatchStudy(name="b", experiments=("x", "y"), metrics=("eval_loss",))
        if direction is None:
            with pytest.raises(UserError, match="'eval_loss' does not say which of these is better"):
                column_metrics(by_loss, experiments)
        else:
            assert column_metrics(by_loss, experiments)[0].direction == direction
    qwen, gemma = causal, load_experiment("causal_gemma")
    for metric in ("eval_loss", "eval_perplexity"):
        assert not compares(metric, [load_family(each) for each in (qwen, gemma)])
    assert compares("eval_rouge1", [load_family(each) for each in (qwen, gemma)])
    words = kobart.with_({"task.rouge_tokenizer": "whitespace"})
    with pytest.raises(UserError, match=r"eval_rouge1.*tokenizer=morpheme.*tokenizer=whitespace"):
        column_metrics(BatchStudy(name="b", experiments=("x", "y")), [kobart, words])


def test_a_batch_that_names_no_metric_is_ranked_by_one_that_all_measure_alike():
    pairs = load_experiment("preference_qwen", ["training.best_metric=eval_loss"])
    two = BatchStudy(name="b", experiments=("x", "y"))
    stricter = pairs.with_({"task.beta": 0.5, "experiment.name": "stricter"})
    assert two.resolved([pairs, stricter]).metrics[0] == "eval_reward_accuracy"
    # A margin of rewards is as many times as large as beta is.
    assert not compares("eval_reward_margin", [load_family(each) for each in (pairs, stricter)])
    assert two.resolved([pairs, pairs.with_({"experiment.name": "again"})]).metrics[0] == "eval_loss"


def test_nothing_is_ranked_by_losses_of_other_kinds():
    pairs = load_experiment("preference_qwen", ["training.best_metric=eval_loss", "data.train=a.csv"])
    stricter = pairs.with_({"task.beta": 0.5, "experiment.name": "stricter"})
    said = r"'eval_loss' does not say.*beta 0\.1.*beta 0\.5"
    with pytest.raises(UserError, match=said):
        CrossvalStudy(experiments=("x", "y")).resolved([pairs, stricter])
    betas = ProgressiveStudy(
        name="p", experiment="x", candidates=({"task.beta": 0.1}, {"task.beta": 0.5}), on_baseline="warn"
    )
    with pytest.raises(UserError, match=said):
        ProgressiveKind(betas, [pairs], lambda experiment: experiment).checked()
    metrics = tuple({"training.best_metric": name} for name in ("eval_loss", "eval_reward_accuracy"))
    with pytest.raises(UserError, match="ranked by one metric"):
        ProgressiveKind(
            betas.with_values(candidates=metrics), [pairs], lambda experiment: experiment
        ).checked()


def test_a_sweep_whose_points_change_the_kind_of_the_loss_is_not_decided_by_it(tmp_path):
    pairs = load_experiment("preference_qwen")
    space = {"parameters": {"task.beta": {"type": "uniform", "low": 0.1, "high": 0.5}}}
    for metric, is_refused in (("eval_loss", True), ("eval_reward_accuracy", False)):
        study = SweepStudy.model_validate(
            {"name": "s", "experiment": "x", "space": space, "metrics": [metric]}
        ).resolved([pairs])
        if is_refused:
            with pytest.raises(UserError, match=r"'eval_loss' does not say.*beta 0\.1.*beta 0\.5"):
                Sweep(study, pairs, tmp_path)
        else:
            Sweep(study, pairs, tmp_path)


def planned(experiment: Experiment, *metrics: str) -> tuple[SweepMetric, ...]:
    """What a sweep looks for, once its experiment is known."""
    study = SweepStudy.model_validate({"experiment": experiment.name, "metrics": metrics})
    return study.resolved([experiment]).metrics


def test_a_sweep_asks_the_metric(tiny):
    experiment = tiny("t5", "lora")
    found = planned(experiment, "eval_loss", "eval_rouge1", "seconds", "peak_memory_mb")
    assert [each.direction for each in found] == ["min", "max", "min", "min"]
    assert planned(experiment) == (SweepMetric(name="eval_rouge_sum", direction="max"),)
    loss = looked_for(SweepMetric(name="eval_loss"), load_family(experiment))
    assert loss == Metric("eval_loss", "min")
    assert load_family(judged_by(experiment, loss)).best_metric == loss


@pytest.mark.parametrize(
    ("metric", "problem"),
    [
        ("eval_loss:max", "lower is better"),
        ("eval_rouge1:min", "higher is better"),
        ("seconds:max", "lower is better"),
        ("eval_lss", "eval_loss"),
        ("wer", "wer:min|NAME:min"),
        ("eval_mean_generated_tokens", "eval_mean_generated_tokens:min"),
    ],
)
def test_a_sweep_of_a_wrong_or_unknown_direction_is_refused(tiny, metric, problem):
    with pytest.raises(UserError, match=problem):
        planned(tiny("t5", "lora"), metric)


def test_a_figure_of_the_users_own_takes_the_direction_that_is_given(tiny):
    assert planned(tiny("t5", "lora"), "eval_loss", "wer:min")[1].direction == "min"
