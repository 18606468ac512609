from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dure.metrics.metric import Metric, definitions
from dure.metrics.paired import Difference
from dure.reporting.columns import plain_text
from dure.studies.crossval.driver import CrossvalKind
from dure.studies.crossval.report import CrossvalView, comparison_sentence, crossval_table
from dure.studies.crossval.results import (
    ComparisonRecord,
    CrossvalResults,
    ExperimentRecord,
    comparisons,
)


def text_of(results: Any) -> str:
    return plain_text(crossval_table(results))


CLASSES = ("기쁨", "슬픔")
DEFINITIONS = definitions(
    [Metric("loss", "min"), *(Metric(name, "max", "share") for name in ("accuracy", "macro_f1"))]
)


def fold(number, score, state="completed", error=None):
    metrics = {
        "loss": 0.5,
        "accuracy": score + 0.1,
        "macro_f1": score,
        "runtime": 3.0,
        "samples_per_second": 9.0,
    }
    for place, name in enumerate(CLASSES):
        metrics |= {f"{figure}[{name}]": score + place / 10 for figure in ("precision", "recall", "f1")}
        metrics[f"support[{name}]"] = 1000.0
    done = state == "completed"
    return {
        "fold": number, "state": state, "path": f"outputs/f{number}", "seconds": 60.0 * number, "error": error,
        "metrics": metrics if done else {},
    }  # fmt: skip


def experiment(name, scores=(0.60, 0.70, 0.65), **more):
    folds = [fold(number, score) for number, score in enumerate(scores, 1)]
    mean = {key: sum(one["metrics"][key] for one in folds) / len(folds) for key in folds[0]["metrics"]}
    std = {key: 0.0 if key in ("loss", "runtime", "samples_per_second") else 0.05 for key in mean}
    return {"name": name, "folds": folds, "mean": mean, "std": std, **more}


def test_an_experiment_that_does_not_beat_the_trivial_baseline_is_told_with_it():
    """By the rows that were reported on; those that chose the checkpoint are few and others."""
    text = text_of(
        summary(experiment("good", baseline=0.6), experiment("bad", scores=(0.5, 0.7, 0.6), baseline=0.6))
    )
    assert "trivial baseline on the held-out rows: macro F1 60.00 %" in text
    assert "no better than that: bad" in text
    assert "trivial" not in text_of(summary(experiment("old")))


def summary(*experiments, **more):
    records = [ExperimentRecord.model_validate(each) for each in experiments]
    return CrossvalResults.model_validate(
        {
            "kind": "crossval", "study": "emotions", "path": "outputs/emotions", "state": "completed", "started": "",
            "seconds": 360.0, "metric": "macro_f1", "direction": "max", "definitions": DEFINITIONS, "num_folds": 3,
            "folds": 3, "seed": 1, "metrics": {}, "dropped": {}, "trials": [], "experiments": records,
            "comparisons": comparisons(records, metric="macro_f1", num_folds=3, predictions={}), **more,
        }
    )  # fmt: skip


OVERALL = {"accuracy": 0.75, "macro_f1": 0.64, "weighted_f1": 0.7, "num_rows": 6000}


def test_one_experiment_is_told_fold_by_fold_and_class_by_class():
    one = experiment("kobert", overall=OVERALL, oof_predictions="outputs/emotions/oof_predictions.csv")
    assert text_of(summary(one)).splitlines() == [
        "emotions · 3 folds in 6:00",
        "",
        "folds",
        "",
        "fold      macro F1 %  accuracy %    loss  time",
        "──────────────────────────────────────────────",
        "1              60.00       70.00  0.5000  1:00",
        "2              70.00       80.00  0.5000  2:00",
        "3              65.00       75.00  0.5000  3:00",
        "mean           65.00       75.00  0.5000",
        "± std           5.00        5.00  0.0000",
        "all rows       64.00       75.00",
        "",
        "classes, mean ± std over folds",
        "",
        "class   precision %      recall %          F1 %   rows",
        "──────────────────────────────────────────────────────",
        "기쁨   65.00 ± 5.00  65.00 ± 5.00  65.00 ± 5.00  3,000",
        "슬픔   75.00 ± 5.00  75.00 ± 5.00  75.00 ± 5.00  3,000",
        "",
        "±: sample standard deviation over folds",
        "all rows: each predicted by the model that has not seen it",
        "predictions: outputs/emotions/oof_predictions.csv",
        "results: outputs/emotions",
    ]


def test_several_are_ranked_and_compared():
    lines = text_of(
        summary(
            experiment("worse", (0.50, 0.60, 0.55)),
            experiment("best", (0.60, 0.71, 0.65)),
            experiment("between"),
        )
    ).splitlines()
    assert lines[0] == "emotions · 3 folds, 3 experiments in 6:00"
    assert [line.split()[0] for line in lines[4:7]] == ["best", "between", "worse"]
    start = lines.index("comparisons")
    assert lines[start + 2].split("  ")[0] == "a"
    assert lines[start + 4].split()[:4] == ["worse", "best", "3", "-10.33"]
    assert sum(" is better than " in line or " cannot be told apart by " in line for line in lines) == 3
    assert "p-values are corrected for 3 comparisons (Holm)" in lines
    assert "between: classes, mean ± std over folds" in lines


def test_a_fold_that_failed_is_told_with_its_reason():
    one = experiment("kobert")
    one["folds"].append(fold(4, 0.0, "failed", "out of memory"))
    text = text_of(summary(one, state="failed"))
    assert "in 6:00 · failed" in text
    assert "kobert, fold 4 failed: out of memory" in text
    assert any(line.split()[:3] == ["4", "failed", "–"] for line in text.splitlines())


def test_an_experiment_whose_hard_fold_failed_is_not_ranked_before_one_that_has_all():
    lucky = experiment("lucky", scores=(0.70, 0.65), baseline=0.4)
    lucky["folds"].append(fold(3, 0.0, "failed", "out of memory"))
    whole = experiment("whole", scores=(0.70, 0.65, 0.40), baseline=0.3)
    results = summary(lucky, whole, state="failed")
    lines = text_of(results).splitlines()
    assert [line.split()[:2] for line in lines[4:6]] == [["whole", "3/3"], ["lucky", "2/3"]]
    assert any(line.startswith("lucky lacks 1 fold: its means are of other rows") for line in lines)
    assert "trivial baseline on the held-out rows: macro F1 % of lucky 40.00, whole 30.00" in lines
    assert not any("flattered" in line for line in lines)
    name, _ = CrossvalKind.winner(results)
    assert name == "whole"
    told = CrossvalView.facts_of(results, Path())["sentences"]
    assert told[0].startswith("lucky: macro F1 67.50 % over 2 folds of 3, and so of other rows")


@pytest.mark.parametrize("width", [50, 80, 120])
def test_every_width_keeps_whole_numbers(width):
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(
        crossval_table(summary(experiment("a"), experiment("b")))
    )
    assert max(map(len, file.getvalue().splitlines())) <= width
    assert "65.00 ± 5.00" in file.getvalue()


def test_a_study_that_has_just_begun_has_a_table():
    begun = {"name": "a", "folds": [], "mean": {}, "std": {}}
    text = text_of(summary(begun, {**begun, "name": "b"}, state="running"))
    assert text.startswith("emotions · 3 folds, 2 experiments in 6:00 · running\n")


def test_the_first_of_several_is_said_to_be_flattered_and_one_alone_is_not():
    first, equal = experiment("kobert", overall=OVERALL), experiment("base", overall=OVERALL)
    other = experiment("other", scores=(0.5, 0.6, 0.5), overall=OVERALL)
    assert "its score is a little flattered" in text_of(summary(first, other))
    assert "flattered" not in text_of(summary(first, equal)), "of equals none is first"
    assert "flattered" not in text_of(summary(experiment("kobert", overall=OVERALL)))


LOSS, F1 = Metric("loss", "min"), Metric("macro_f1", "max", "share")


@pytest.mark.parametrize(
    ("metric", "value", "p_holm", "said"),
    [
        (F1, 0.05, 0.01, "a is better than b by 5.00 points of macro F1, 95 % between 4.00 and 6.00 "),
        (F1, -0.05, 0.01, "b is better than a by 5.00 points of macro F1, 95 % between 4.00 and 6.00 "),
        (LOSS, 0.05, 0.01, "b is better than a by 0.0500 of loss, 95 % between 0.0400 and 0.0600 "),
        (
            LOSS,
            -0.05,
            0.2,
            "a and b cannot be told apart by loss: -0.0500, 95 % between -0.0600 and -0.0400 ",
        ),
    ],
)
def test_two_experiments_are_compared_in_the_words_that_all_pages_have(metric, value, p_holm, said):
    found = Difference(value, value - 0.01, value + 0.01, 0.95, p_holm / 2)
    pair = ComparisonRecord(a="a", b="b", metric=metric.name, folds=5, difference=found, p_holm=p_holm)
    how = f"(5 folds, corrected resampled t-test, p = {p_holm:g} by Holm)."
    assert comparison_sentence(pair, metric) == said + how
    same = pair.model_copy(update={"difference": Difference(0.0, 0.0, 0.0, 0.95, 1.0), "p_holm": 1.0})
    assert comparison_sentence(same, metric).endswith(" on every one of 5 folds.")
