"""Runs are compared by what they left: only what may be compared, and a tie is a tie."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dure import compare
from dure.archive.comparison_table import comparison_table
from dure.config import load_experiment
from dure.data.writing import write_rows
from dure.errors import UserError
from dure.family import load_family
from dure.metrics.classification import classification_report
from dure.metrics.metric import Metric, definitions
from dure.reporting.columns import plain_text
from dure.runs.folder import RunFolder
from dure.studies.batch.report import paired_sentences
from dure.training.completed import _kinds

from .made_runs import drawn_hits, made_run

ROWS = 250
HARD = np.random.default_rng(0).uniform(0.55, 0.85, ROWS)


def seeds_of(folder, name, rng, effect, **more):
    for seed in range(1, 6):
        hits = drawn_hits(rng, HARD, effect, rng.normal(0, 0.01))
        settings = {"experiment.seed": seed, **more}
        made_run(folder / f"{name}-{seed}", hits, settings=settings, name=f"{name}.seed_{seed}")


def test_five_seeds_of_two_settings_cover_the_known_difference_and_equal_ones_are_a_tie(tmp_path):
    rng = np.random.default_rng(1)
    seeds_of(tmp_path, "clean", rng, 0.0, **{"training.learning_rate": 1e-4})
    seeds_of(tmp_path, "noisy", rng, -0.12, **{"training.learning_rate": 2e-4})
    seeds_of(tmp_path, "same", rng, 0.0, **{"training.learning_rate": 3e-4})
    found = compare(str(tmp_path / "*"))
    assert {each.name: each.seeds for each in found.settings} == dict.fromkeys(
        ("clean", "noisy", "same"), (1, 2, 3, 4, 5)
    )
    pairs = {frozenset((pair.a, pair.b)): pair for pair in found.pairs}
    apart = pairs[frozenset(("clean", "noisy"))]
    assert (apart.num_seeds, apart.num_rows) == (5, ROWS)
    assert apart.low <= 0.12 <= apart.high
    assert apart.verdict == "better"
    assert apart.p_holm < 0.05
    assert pairs[frozenset(("clean", "same"))].verdict == "tie"
    assert set(found.groups[0].ties) | {found.groups[0].best} == {"clean", "same"}
    assert "clean and same cannot be told apart" in " ".join(found.sentences) or (
        "same and clean cannot be told apart" in " ".join(found.sentences)
    )
    assert all(each.deviation is not None for each in found.settings)
    assert [list(each.values) for each in found.settings] == [["training.learning_rate"]] * 3


def test_what_was_measured_on_other_rows_or_by_another_tokeniser_is_not_ranked_together(tmp_path):
    hits = drawn_hits(np.random.default_rng(2), HARD, 0, 0)
    made_run(tmp_path / "a", hits, settings={"training.epochs": 1})
    made_run(tmp_path / "b", hits, settings={"training.epochs": 2}, table="another table")
    made_run(tmp_path / "c", hits[:100], settings={"training.epochs": 3})
    made_run(tmp_path / "d", None, settings={"training.epochs": 4})
    found = compare(tmp_path)
    assert [group.settings for group in found.groups] == [("a",), ("b",), ("c",), ("d",)]
    assert found.pairs == ()
    notes = "\n".join(found.notes)
    assert "not ranked together: c and a, since their test rows differ (100 rows" in notes
    assert "d and a, since these scores are of validation rows and those of test rows" in notes
    for name, tokenizer in (("e", "morpheme"), ("f", "whitespace")):
        made_run(
            tmp_path / "rouge" / name,
            hits,
            settings={"training.epochs": ord(name)},
            notes={"rouge_tokenizer": tokenizer},
            metrics={"test_rouge1": 0.3, "eval_rouge1": 0.3},
        )
    by_rouge = compare(tmp_path / "rouge", metric="rouge1")
    assert len(by_rouge.groups) == 2
    assert "rouge tokenizer differs (whitespace and morpheme)" in "\n".join(by_rouge.notes)
    # Accuracy needs no tokeniser of ROUGE.
    assert len(compare(tmp_path / "rouge").groups) == 1


@pytest.mark.parametrize(("num_rows", "num_groups"), [(48, 2), (30, 1)])
def test_validation_rows_that_other_seeds_drew_are_other_rows(tmp_path, num_rows, num_groups):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = {"training.epochs": ord(name), "experiment.seed": seed, "data.max_dev_rows": 48}
        made_run(tmp_path / name, None, settings=settings, metrics={"num_dev_rows": num_rows})
    found = compare(tmp_path)
    assert len(found.groups) == num_groups
    if num_groups == 2:
        assert found.groups[0].settings == ("a", "b")
        assert any("their validation rows differ (48 rows, hash" in note for note in found.notes)


def test_losses_are_ranked_together_where_they_are_of_one_kind(tmp_path):
    hits = drawn_hits(np.random.default_rng(2), HARD, 0, 0)
    for name, kind in (("a", "rows"), ("b", "rows"), ("c", "tokens of t5")):
        settings = {"model.checkpoint": name}
        made_run(
            tmp_path / name, hits, settings=settings, notes={"loss_kind": kind}, metrics={"test_loss": 0.3}
        )
    found = compare(tmp_path, metric="loss")
    assert [group.settings for group in found.groups] == [("a", "b"), ("c",)]
    for name in ("causal_qwen", "causal_gemma"):
        notes = _kinds(load_family(load_experiment(name)))
        assert [*notes] == ["loss_kind", "perplexity_kind"]
        settings, metrics = {"model.checkpoint": name}, {"test_perplexity": 9.0, "eval_perplexity": 9.0}
        run = RunFolder(
            made_run(tmp_path / "texts" / name, hits, settings=settings, notes=notes, metrics=metrics)
        )
        defined = definitions([Metric("eval_perplexity", "min")])
        run.write_result(replace(run.read_result(), definitions=defined))
    assert len(compare(tmp_path / "texts", metric="perplexity").groups) == 2
    assert "not ranked together: c and a, since loss kind differs (tokens of t5 and rows)" in found.notes
    assert not [note for note in found.notes if "cannot be compared" in note]
    assert len(compare(tmp_path, metric="accuracy").groups) == 1


def test_a_metric_that_is_no_mean_over_rows_is_compared_by_one_that_is_and_says_so(tmp_path):
    for name in "ab":
        hits = drawn_hits(np.random.default_rng(ord(name)), HARD, 0, 0)
        made_run(tmp_path / name, hits, settings={"training.epochs": ord(name)})
    found = compare(tmp_path, metric="test_macro_f1")
    assert found.metric == "macro_f1"
    assert found.pairs[0].metric == "accuracy"
    assert "macro F1 is no mean over rows: rows are compared by accuracy" in found.notes
    assert any("one seed each" in note for note in found.notes)


def test_a_rare_class_that_one_model_alone_finds_decides_by_macro_f1_and_not_by_accuracy(tmp_path):
    labels = ["a"] * 190 + ["b"] * 10
    finds = ["b"] * 8 + ["a"] * 182 + ["b"] * 8 + ["a"] * 2
    for name, said in (("finds", finds), ("finds_none", ["a"] * 200)):
        hits = np.array([one == other for one, other in zip(labels, said, strict=True)], dtype=float)
        of = {"test_macro_f1": classification_report(labels, said)["macro_f1"]}
        run = made_run(tmp_path / name, hits, settings={"training.epochs": len(name)}, metrics=of)
        rows = zip(range(200), labels, said, hits, strict=True)
        (run / "predictions.csv").unlink()
        write_rows(run / "predictions.csv", ["row", "label", "predicted_label", "score_accuracy"], rows)
    by_accuracy, by_macro_f1 = compare(tmp_path, metric="macro_f1").sentences
    assert "equal" in by_accuracy or "cannot be told apart by accuracy" in by_accuracy
    assert by_macro_f1.startswith("finds is better than finds_none by ")
    assert "points of macro F1, 95 % between" in by_macro_f1
    (alone,) = compare(tmp_path, metric="accuracy").sentences
    assert "macro F1" not in alone

    runs = {name: tmp_path / name for name in ("finds", "finds_none")}
    told = paired_sentences(runs, Metric("eval_macro_f1", "max", "share"))
    assert [line.split(": ")[0] for line in told] == ["On the test rows"] * 2
    assert "finds is better than finds_none by" in told[1]


def test_the_rows_that_differ_most_are_shown_with_ids_and_long_texts_cut(tmp_path):
    hits = np.ones(40)
    other = hits.copy()
    other[[3, 7]] = 0
    for name, made in (("a", hits), ("b", other)):
        made_run(tmp_path / name, made, settings={"training.epochs": ord(name)}, texts={3: "긴 " * 2000})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [each.row for each in found.examples] == [3, 7]
    assert found.examples[0].columns["id"] == "id3"
    assert len(found.examples[0].columns["text"]) == 300
    assert found.examples[1].predictions == {"a": {"label": "a"}, "b": {"label": "b"}}
    assert (found.pairs[0].wins, found.pairs[0].ties, found.pairs[0].losses) == (2, 38, 0)
    assert found.pairs[0].verdict == "tie"  # two rows of forty are no evidence
    text = plain_text(comparison_table(found))
    assert "2/38/0" in text
    assert "id7" in text
    assert "cannot be told apart" in text


def test_folds_of_one_experiment_are_one_setting_on_all_rows(tmp_path):
    rng = np.random.default_rng(3)
    for name, effect in (("good", 0.1), ("bad", -0.2)):
        for fold in (1, 2):
            rows = list(range(fold - 1, ROWS, 2))
            fold_settings = {"data.fold": {"number": fold, "of": 2, "seed": 1}, "training.epochs": len(name)}
            made_run(
                tmp_path / name / f"fold_{fold}",
                drawn_hits(rng, HARD[rows], effect, 0),
                settings=fold_settings,
                name=f"{name}.fold_{fold}",
                rows=rows,
            )
    found = compare(tmp_path)
    assert [each.name for each in found.settings] == ["good", "bad"]
    assert found.pairs[0].num_rows == ROWS
    assert found.pairs[0].verdict == "better"
    assert all(len(each.runs) == 2 for each in found.settings)


def test_a_folder_that_keeps_the_model_of_a_stage_beneath_it_is_no_further_run(tmp_path):
    hits = drawn_hits(np.random.default_rng(2), HARD, 0, 0)
    made_run(tmp_path, hits, name="grown")
    (tmp_path / "metrics.jsonl").unlink()
    for number in (1, 2):
        made_run(
            tmp_path / f"stage_{number}_50pct",
            hits,
            name=f"grown.{number}",
            settings={"training.epochs": number},
        )
    assert [each.name for each in compare(tmp_path).settings] == ["grown.1", "grown.2"]


def test_nothing_is_best_that_is_no_better_than_the_trivial_predictor(tmp_path):
    for name in "ab":
        hits = drawn_hits(np.random.default_rng(ord(name)), HARD, 0, 0)
        figures = {"baseline_accuracy": 0.7, "eval_accuracy": 0.7}
        made_run(tmp_path / name, hits, settings={"training.epochs": ord(name)}, metrics=figures)
    found = compare(tmp_path)
    assert found.groups[0].best is None
    assert sum("no better than the trivial predictor" in each for each in found.sentences) == 2


def test_a_test_score_is_held_against_the_trivial_predictor_of_the_test_rows(tmp_path):
    """A checkpoint that the validation rows chose beats their baseline by having been chosen."""
    for name in "ab":
        hits = drawn_hits(np.random.default_rng(ord(name)), HARD, 0, 0)
        figures = {"baseline_test_accuracy": float(np.mean(hits)) + 0.01}
        made_run(tmp_path / name, hits, settings={"training.epochs": ord(name)}, metrics=figures)
    found = compare(tmp_path)
    assert found.groups[0].best is None
    assert (
        sum("no better than the trivial predictor on its test rows" in each for each in found.sentences) == 2
    )


def test_equal_experiments_that_were_given_apart_are_compared_and_failed_runs_are_told(tmp_path):
    rng = np.random.default_rng(4)
    for study in ("before", "after"):
        for seed in (1, 2):
            hits = drawn_hits(rng, HARD, 0, 0)
            made_run(tmp_path / study / str(seed), hits, settings={"experiment.seed": seed}, name="bert")
    made_run(tmp_path / "after" / "broken", None, settings={"training.epochs": 9}, state="failed")
    found = compare(tmp_path / "before", tmp_path / "after")
    assert sorted(each.name for each in found.settings) == ["bert (after)", "bert (before)"]
    assert found.pairs[0].num_seeds == 2
    assert any("is not compared: it is failed: CUDA ran away" in note for note in found.notes)


def test_record_tables_and_curves_are_written_and_replace_nothing(tmp_path):
    for name in "ab":
        made_run(
            tmp_path / "runs" / name, (HARD > 0.6).astype(float), settings={"training.epochs": ord(name)}
        )
    found = compare(tmp_path / "runs", output=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")) == found.as_json()
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 3
    (tmp_path / "out" / "comparison.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"comparison\.txt"):
        compare(tmp_path / "runs", output=tmp_path / "out")
    compare(tmp_path / "runs", output=tmp_path / "out", force=True)
    assert "equal on every row" in (tmp_path / "out" / "comparison.txt").read_text(encoding="utf-8")


def test_runs_that_were_chosen_by_different_metrics_name_those_that_all_have(tmp_path):
    more = {"eval_runtime": 3.0, "eval_samples_per_second": 9.0, "eval_f1[a]": 0.5}
    made_run(tmp_path / "a", HARD > 0.5, metrics=more)
    other = made_run(
        tmp_path / "b", HARD > 0.5, settings={"training.epochs": 9}, metrics={"eval_rouge1": 0.3, **more}
    )
    result = json.loads((other / "result.json").read_text(encoding="utf-8"))
    (other / "result.json").write_text(json.dumps({**result, "best_metric": "eval_rouge1"}), encoding="utf-8")
    with pytest.raises(UserError, match="chosen by accuracy, rouge1") as caught:
        compare(tmp_path)
    assert caught.value.expected == "one that all of them have: accuracy, loss, macro_f1"


@pytest.mark.parametrize(
    ("words", "metric", "said"),
    [
        (["none"], None, "no such folder"),
        (["runs/a"], None, "one setting"),
        (["empty"], None, "holds no run"),
        (["runs/*"], "acuracy", "'acuracy'"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path, monkeypatch, words, metric, said):
    for name in "ab":
        made_run(
            tmp_path / "runs" / name, (HARD > 0.6).astype(float), settings={"training.epochs": ord(name)}
        )
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        compare(*words, metric=metric)
