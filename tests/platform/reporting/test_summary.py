from __future__ import annotations

import io
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dure.errors import typed_path
from dure.metrics.classification import classification_report
from dure.metrics.metric import Metric, definitions
from dure.reporting.columns import GAP, Column, FittedTable, column, fitting, plain_text
from dure.reporting.figures import duration, metric_label, metric_phrase, setting_text
from dure.reporting.summary import (
    catalogue_table,
    class_table,
    evaluation_report,
    ranked,
    result_table,
    score_table,
    summary_table,
)

TOKENIZER = {"rouge_tokenizer": "morpheme", "rouge_tokenizer_version": "kiwipiepy 0.24.1"}


def experiment(name: str, rouge1: float, **more: Any) -> dict[str, Any]:
    metrics = {"eval_rouge1": rouge1, "eval_loss": 3.0 - rouge1, "untrained_rouge1": 0.0213, **TOKENIZER}
    return {
        "name": name,
        "state": "completed",
        "metrics": metrics,
        "error": None,
        "seconds": 62.0,
        "path": name,
        **more,
    }


def summary(*experiments: dict[str, Any]) -> dict[str, Any]:
    return {
        "study": "seven",
        "kind": "batch",
        "path": "outputs/seven/now",
        "started": "2026-01-01T00:00:00",
        "seconds": 300.0,
        "metrics": ["eval_rouge1", "eval_loss"],
        "definitions": definitions([Metric("eval_rouge1", "max", "share"), Metric("eval_loss", "min")]),
        "experiments": list(experiments),
    }


FAILED = experiment("broken", 0.0, state="failed", metrics={}, error="UserError: lora [targets]", seconds=3.0)


def text_of(data: Any) -> str:
    return plain_text(summary_table(data))


def printed(renderable: Any, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_the_summary_ranks_by_the_first_metric_with_gain_best_tokeniser_and_errors() -> None:
    text = text_of(summary(experiment("low", 0.2), FAILED, experiment("high", 0.31114)))

    assert text.splitlines() == [
        "seven · 3 experiments in 5:00, ranked by ROUGE-1",
        "",
        "#  experiment  state      ROUGE-1 %  above untrained  eval loss  time",
        "─────────────────────────────────────────────────────────────────────",
        "1  high        completed    * 31.11           +28.98   * 2.6889  1:02",
        "2  low         completed      20.00           +17.87     2.8000  1:02",
        "–  broken      failed             –                –          –  0:03",
        "",
        "*: best of its column",
        "above …: in percentage points",
        "ROUGE tokeniser: morpheme (kiwipiepy 0.24.1)",
        "broken failed: UserError: lora [targets]",
        "results: outputs/seven/now",
    ]


def test_what_an_experiment_had_reached_before_it_failed_has_no_place_and_no_star() -> None:
    ahead = experiment("ahead", 0.4, state="failed", error="RunError: the disk is full")
    lines = text_of(summary(experiment("low", 0.2), ahead, experiment("high", 0.3))).splitlines()
    assert [line.split()[:2] for line in lines[4:7]] == [["1", "high"], ["2", "low"], ["–", "ahead"]]
    assert "* 30.00" in lines[4]
    assert "*" not in lines[6]
    assert "40.00" in lines[6]


def test_the_summary_has_the_gain_over_the_trivial_baseline() -> None:
    one, other = experiment("low", 0.2), experiment("high", 0.3)
    for each in (one, other):
        each["metrics"] = {**each["metrics"], "baseline_rouge1": 0.25}
    lines = text_of(summary(one, other)).splitlines()
    assert "ROUGE-1 %  above baseline  above untrained" in lines[2]
    assert "* 30.00           +5.00" in lines[4]
    assert "20.00           -5.00" in lines[5]


def test_the_summary_has_the_score_on_test_rows_beside_the_one_that_chose() -> None:
    one, other = experiment("low", 0.2), experiment("high", 0.3)
    other["metrics"] = {**other["metrics"], "test_rouge1": 0.27}
    lines = text_of(summary(one, other)).splitlines()
    assert "ROUGE-1 %  above untrained  on test rows  eval loss" in lines[2]
    assert lines[4].split()[-4] == "27.00"
    assert "–" in lines[5]


def test_the_table_shows_the_same_as_the_text_where_there_is_room() -> None:
    data = summary(experiment("low", 0.2), FAILED, experiment("high", 0.3))

    assert printed(summary_table(data), 200) + "\n" == text_of(data)


def test_a_narrow_terminal_gets_fewer_columns_but_whole_numbers() -> None:
    data = summary(experiment("a_long_name_of_an_experiment", 0.2), experiment("high", 0.3))
    text = printed(summary_table(data), 50)

    assert "* 30.00" in text
    assert "eval loss" not in text
    assert "more columns in a wider window and in" in text
    assert "a_long_name_of_an_experi" in text
    assert max(map(len, text.splitlines())) <= 50


def test_scores_of_different_tokenisers_are_said_to_be_incomparable() -> None:
    other = experiment("words", 0.4)
    other["metrics"] = {**other["metrics"], "rouge_tokenizer": "whitespace", "rouge_tokenizer_version": "1"}

    assert (
        "ROUGE tokenisers differ, so these scores cannot be compared: "
        "morpheme (kiwipiepy 0.24.1): high; whitespace (1): words"
    ) in text_of(summary(experiment("high", 0.3), other))


def test_a_study_in_which_everything_failed_still_has_a_summary() -> None:
    text = text_of(summary(FAILED))

    assert "–  broken" in text
    assert "*" not in text
    assert "seven · 1 experiment in" in text


@given(st.lists(st.floats(min_value=0, max_value=1) | st.just(float("nan")), max_size=8))
def test_scores_are_ranked_best_first_and_nan_last(scores: list[float]) -> None:
    rows = [experiment(str(place), score) for place, score in enumerate(scores)]
    metric = Metric("eval_rouge1", "max", "share")
    order = [rows[place]["metrics"]["eval_rouge1"] for place in ranked(rows, metric)]
    numbers = [score for score in order if score == score]

    assert len(order) == len(scores)
    assert numbers == sorted(numbers, reverse=True)
    assert all(score != score for score in order[len(numbers) :])


def test_a_loss_is_ranked_lowest_first() -> None:
    rows = [experiment("bad", 0.1), experiment("good", 0.9)]

    assert ranked(rows, Metric("eval_loss", "min")) == [1, 0]


def test_the_result_of_a_run_shows_its_figures_changes_and_files() -> None:
    result = {
        "name": "kobart",
        "state": "completed",
        "metrics": {
            "num_rouge_empty": 3,
            "eval_rouge1": 0.5,
            "eval_loss": 2.5,
            "eval_runtime": 3.0,
            "test_rouge1": 0.25,
            "untrained_rouge1": 0.25,
            **TOKENIZER,
        },
        "best_checkpoint": "checkpoint-50",
        "final_model_path": "final_model",
        "seconds": 61.0,
        "error": None,
    }

    assert printed(result_table(result), 80).splitlines() == [
        "kobart · completed in 1:01",
        "",
        "metric           value  untrained  above untrained",
        "──────────────────────────────────────────────────",
        "ROUGE-1 %        50.00      25.00           +25.00",
        "eval loss       2.5000          –                –",
        "rouge empty          3          –                –",
        "test ROUGE-1 %   25.00          –                –",
        "",
        "ROUGE tokeniser: morpheme (kiwipiepy 0.24.1)",
        "best checkpoint: checkpoint-50",
        "final model: final_model",
    ]


def test_the_trivial_predictor_stands_beside_the_result_and_not_among_its_figures() -> None:
    result = {
        "name": "bert",
        "state": "completed",
        "metrics": {
            "eval_accuracy": 0.8,
            "eval_loss": 0.5,
            "baseline_accuracy": 0.5,
            "baseline_loss": 0.69,
            "steps": 3,
        },
        "seconds": 5.0,
    }

    assert printed(result_table(result), 80).splitlines()[2:] == [
        "metric       value  baseline  above baseline",
        "────────────────────────────────────────────",
        "accuracy %   80.00     50.00          +30.00",
        "eval loss   0.5000    0.6900         -0.1900",
        "steps            3         –               –",
    ]


def test_a_gain_is_over_the_trivial_predictor_where_the_untrained_model_is_worse() -> None:
    metrics = {
        "eval_rouge1": 0.23, "baseline_rouge1": 0.24, "untrained_rouge1": 0.11,
        "eval_num_empty_predictions": 0, "untrained_num_empty_predictions": 2, "test_num_empty_predictions": 1,
    }  # fmt: skip
    result = {"name": "kobart", "state": "completed", "metrics": metrics, "seconds": 5.0}
    table = result_table(result, ["What it is worth."])
    lines = [line.split() for line in printed(table, 80).splitlines()[2:]]
    assert lines[0] == ["metric", "value", "baseline", "above", "baseline", "untrained"]
    assert lines[2] == ["ROUGE-1", "%", "23.00", "24.00", "-1.00", "11.00"]
    assert lines[4] == ["test", "empty", "predictions", "1", "–", "–", "–"]
    assert lines[-1] == ["What", "it", "is", "worth."]
    untrained = result_table({**result, "metrics": {k: v for k, v in metrics.items() if "empty" in k}})
    assert "empty predictions           0          2               -2" in printed(untrained, 80)


def test_an_evaluation_says_what_its_rows_leave_open_of_shares_of_classes() -> None:
    figures = {"precision": (0.99, 0.5), "recall": (0.99, 0.5), "support": (490.0, 10.0)}
    metrics = {"eval_accuracy": 0.98, "eval_macro_f1": 0.745, "eval_loss": 0.1, "eval_runtime": 1.0} | {
        f"eval_{name}[{label}]": values[place]
        for name, values in figures.items()
        for place, label in enumerate(("a", "b"))
    }
    share = {"direction": "max", "unit": "share"}
    found = {
        "experiment": "bert", "table": "t.csv", "rows": 500, "data": "0" * 64, "model": "final_model", "notes": {},
        "metrics": metrics, "definitions": {"eval_accuracy": share, "eval_macro_f1": share},
    }  # fmt: skip
    lines = [line.split() for line in printed(evaluation_report(found), 80).splitlines()[2:7]]
    assert lines[0] == ["metric", "value", "95", "%", "interval"]
    assert lines[2] == ["accuracy", "%", "98.00", "96.36", "to", "98.91"]
    low, high = float(lines[3][-3]), float(lines[3][-1])
    assert high - low > 20, "ten rows decide half of it"
    assert lines[4] == ["eval", "loss", "0.1000", "–"]
    generated = {**found, "metrics": {"eval_rouge1": 0.2, "eval_runtime": 1.0}}
    assert "interval" not in printed(evaluation_report(generated), 80)


def test_scores_name_precision_recall_and_tokeniser() -> None:
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    figures = {f"{name}{part}": 0.5 for name in names for part in ("", "_precision", "_recall")}
    scores = {
        "task": "generation",
        **figures,
        "rouge_sum": 1.5,
        "num_pairs": 1200,
        "num_empty_predictions": 1,
        "tokenizer": "morpheme",
        "tokenizer_version": "kiwipiepy 0.24",
        "columns": {"id": "fname", "prediction": "summary", "references": ["summary"]},
    }

    assert printed(score_table(scores), 80).splitlines() == [
        "1,200 pairs",
        "",
        "             F1 %  precision %  recall %",
        "────────────────────────────────────────",
        "ROUGE-1     50.00        50.00     50.00",
        "ROUGE-2     50.00        50.00     50.00",
        "ROUGE-L     50.00        50.00     50.00",
        "ROUGE-Lsum  50.00        50.00     50.00",
        "",
        "ROUGE sum 150.00 % (F1 of ROUGE-1, 2 and L)",
        "ROUGE tokeniser: morpheme (kiwipiepy 0.24)",
        "1 prediction without a token, scored 0",
        "summary against summary, joined by fname",
    ]


def test_scores_of_classes_are_shown_per_class() -> None:
    columns = {"id": None, "prediction": "label", "references": ["label"]}
    report = classification_report(["기쁨", "슬픔"], ["기쁨", "기쁨"])
    scores = {"task": "classification", "columns": columns, **report, "library": {"same": 0.5}}

    assert printed(score_table(scores), 80).splitlines() == [
        "2 rows",
        "",
        "class  precision %  recall %   F1 %  support",
        "────────────────────────────────────────────",
        "기쁨         50.00    100.00  66.67        1",
        "슬픔          0.00      0.00   0.00        1",
        "",
        "accuracy 50.00 %",
        "macro F1 33.33 %",
        "weighted F1 33.33 %",
        "label against label, paired by their order",
        "same: 0.5000",
    ]


def test_the_catalogue_shows_each_kind_once() -> None:
    catalogue = {"experiments": {"a": "한국어.", "b": ""}, "profiles": {"cpu": "No GPU."}}

    assert printed(catalogue_table(catalogue), 80).splitlines() == [
        "             name",
        "──────────────────────────",
        "experiments  a     한국어.",
        "             b",
        "profiles     cpu   No GPU.",
    ]


@pytest.mark.parametrize(
    ("metric", "value", "phrase"),
    [
        ("eval_rougeLsum", 0.12345, "ROUGE-Lsum 12.35 %"),
        ("eval_rouge_sum", 1.5, "ROUGE sum 150.00 %"),
        ("test_rouge1_recall", 0.5, "test ROUGE-1 recall 50.00 %"),
        ("num_rouge_empty", 3, "rouge empty 3"),
        ("accuracy", 1, "accuracy 100.00 %"),
        ("eval_f1_macro", 0.5, "F1 macro 50.00 %"),
        ("eval_loss", 0.12345, "eval loss 0.1235"),
        ("learning_rate", 3e-5, "learning rate 3.00e-05"),
        ("eval_loss", float("inf"), "eval loss ∞"),
        ("eval_rouge1", None, "ROUGE-1 –"),
    ],
)
def test_metrics_are_written_with_their_units(metric: str, value: float | None, phrase: str) -> None:
    assert metric_phrase(metric, value) == phrase


def test_a_heading_keeps_its_brackets_in_a_file_and_on_a_terminal() -> None:
    table = FittedTable([column(metric_label("eval_f1[joy]"), ["1"]), column("a[bold]", ["2"])])
    shown = io.StringIO()
    Console(file=shown, width=80, force_terminal=True, color_system=None).print(table)
    for text in (plain_text(table), shown.getvalue()):
        assert "f1[joy] %" in text
        assert "a[bold]" in text


def test_a_setting_is_short_and_no_decay_is_rounded_to_one() -> None:
    shown = {
        0.9999: "0.9999",
        0.99: "0.99",
        1.23456e-4: "0.000123",
        1.0: "1",
        12.04: "12.04",
        3: "3",
        None: "–",
    }
    assert {value: setting_text(value) for value in shown} == shown


def test_an_f1_within_another_word_is_no_share() -> None:
    assert metric_label("half1") == "half1"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (None, "–"), (float("nan"), "–")]
)
def test_lengths_of_time_are_shown_as_on_a_clock(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@given(
    st.lists(st.tuples(st.integers(0, 20), st.text("가나ab", max_size=12)), min_size=1, max_size=8),
    st.integers(1, 100),
)
def test_columns_fit_the_width_or_only_those_that_must_stay_are_left(
    parts: list[tuple[int, str]], width: int
) -> None:
    columns = [Column(heading, [], rank) for rank, heading in parts]
    kept = fitting(columns, width)

    assert sum(column.width for column in kept) + GAP * (len(kept) - 1) <= width or all(
        column.rank == 0 for column in kept
    )
    assert [column for column in columns if column in kept and column.rank == 0] == [
        column for column in columns if column.rank == 0
    ]


def test_figures_of_classes_stand_in_a_table_of_their_own() -> None:
    figures = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4.0}
    result = {
        "name": "one",
        "state": "completed",
        "seconds": 1.0,
        "metrics": {"eval_accuracy": 0.5, "eval_loss": 1.0}
        | {
            f"{when}_{figure}[a_loss f1]": value
            for when in ("eval", "test")
            for figure, value in figures.items()
        },
    }
    assert [cell.plain for cell in result_table(result).columns[0].texts] == ["accuracy %", "eval loss"]
    table = class_table(result)
    assert [column.title for column in table.columns] == [
        "class",
        "precision %",
        "recall %",
        "F1 %",
        "support",
    ]
    assert [column.texts[0].plain for column in table.columns] == [
        "a_loss f1",
        "50.00",
        "25.00",
        "33.33",
        "4",
    ]
    assert class_table(result | {"metrics": {"eval_rouge1": 0.5}}) is None


def test_a_path_in_a_command_can_be_typed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed_path(tmp_path / "한글" / "run") == "한글/run"
    assert shlex.split(f"dure predict {typed_path('my run')}") == ["dure", "predict", "my run"]
    assert typed_path("-run") == "./-run"
