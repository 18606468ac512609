"""Every verb with right input: what is printed, what is written, and how it ends."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest
import yaml

from dure.cli.printing import print_json
from dure.config import available

from .conftest import TINY, call, program


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_version_and_help_need_no_verb():
    assert call("--version").out.startswith("dure 0.")
    assert call("--help").out == call("-h").out == call().out
    assert call("--help").code == 0


def test_help_is_whole_sentences_without_the_parsers_own_words():
    listed = call("--help").out.partition("Commands:")[2]
    assert "..." not in listed
    verbs = re.findall(r"^  ([a-z][a-z0-9-]+)  ", listed, re.MULTILINE)
    assert len(verbs) > 30
    for verb in verbs:
        shown = call(verb, "--help").out
        assert not re.search(r"[{}]|\]\]|\.\.\.|list\[|<(str|int|float|path|Path)( range)?>", shown), verb


def test_list_names_everything_that_can_be_run():
    listed = call("list", "--json").value
    assert set(listed["experiments"]) == set(available("experiment"))
    assert set(listed["studies"]) == set(available("study"))
    assert all(listed["profiles"].values())
    printed = call("list").out
    assert all(name in printed for kind in listed.values() for name in kind)


@pytest.mark.parametrize("kind", ["experiment", "study", "profile"])
def test_schema_is_one_json_object(kind):
    assert call("schema", kind).value["$schema"].startswith("https://json-schema.org")


def test_a_result_that_is_no_number_is_null_in_json(capsys):
    print_json({"spearman": math.nan, "inner": [math.inf, 0.5], "word": "NaN"})
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found == {"spearman": None, "inner": [None, 0.5], "word": "NaN"}


def test_a_dry_run_prints_what_would_run_and_leaves_nothing(tmp_path):
    printed = call("train", "kobart_baseline", "--dry-run", "training.learning_rate=1e-3", "-1")
    assert printed.code == 0
    assert yaml.safe_load(printed.out)["training"]["learning_rate"] == pytest.approx(1e-3)
    assert yaml.safe_load(printed.out)["training"]["epochs"] == 1
    as_json = call("batch", "seven", "--only", "5,4", "--dry-run", "--json", "--samples", "7").value
    names = [each["experiment"]["name"] for each in as_json["experiments"]]
    assert names == ["eenzeenee_t5", "kobart_baseline"]
    assert {each["data"]["max_train_rows"] for each in as_json["experiments"]} == {7}
    assert list(tmp_path.iterdir()) == []


def test_what_a_dry_run_prints_can_be_run_again(tmp_path):
    printed = call("train", "eenzeenee_t5", "--rehearse", "--dry-run", *TINY).out
    (tmp_path / "mine.yaml").write_text(printed, encoding="utf-8")
    assert call("train", "mine.yaml", "--dry-run").out == printed


def test_a_run_prints_one_json_object_and_leaves_its_record(trained):
    outcome, folder = trained
    assert outcome.code == 0, outcome.err
    result = outcome.value
    assert result["state"] == "completed"
    assert result["error"] is None
    assert 0 <= result["metrics"]["eval_rouge1"] <= 1
    assert (folder / result["final_model_path"] / "config.json").is_file()
    assert (folder / result["best_checkpoint"]).is_dir()
    assert {key: result[key] for key in result if key != "path"} == json.loads(
        (folder / "result.json").read_text(encoding="utf-8")
    )
    for name in ("experiment.yaml", "environment.json", "metrics.jsonl", "run.log", "training_curves.png"):
        assert (folder / name).stat().st_size > 0


def test_a_run_tells_its_progress_and_where_its_results_are_without_noise_of_libraries(trained):
    outcome, _ = trained
    assert "kobart_baseline: 4 steps; results in run" in outcome.err
    assert "step 4/4" in outcome.err
    *_, ended, advice, more = outcome.err.splitlines()
    assert ended.startswith("kobart_baseline: completed in")
    assert (advice, more.strip()) == ('next: dure predict run --text "…"', "dure evaluate run TABLE")
    for noise in ("ray-project", "it/s]", "Warning", "INFO"):
        assert noise not in outcome.err


def test_a_run_leaves_its_page_and_a_changed_digit_of_it_is_named(trained, tmp_path):
    _, folder = trained
    assert "numbers recomputed" in call("verify-report", folder / "report.html").out
    written = call("report", folder, "--output", "page.html", "--json").value
    assert written["bytes"] == (tmp_path / "page.html").stat().st_size < 1_000_000
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(html.replace(">4</data>", ">5</data>"), encoding="utf-8")
    outcome = call("verify-report", "page.html", "--json")
    assert outcome.code == 1
    assert outcome.value["state"] == "changed"
    assert {change["shown"]: change["recorded"] for change in outcome.value["changes"]}["5"] == "4"


def test_a_finished_run_is_not_run_again(trained):
    outcome, folder = trained
    before = (folder / "result.json").stat().st_mtime_ns
    again = call("train", "kobart_baseline", "--rehearse", "--json", "--output", folder, "--resume", *TINY)
    assert again.value["metrics"] == outcome.value["metrics"]
    assert "completed earlier" in again.err
    assert (folder / "result.json").stat().st_mtime_ns == before


def test_predictions_have_the_ids_and_the_order_of_the_table_and_can_be_scored(trained, corpus, tmp_path):
    table = corpus / "test.csv"
    source = rows_of(table)[:20]
    with (tmp_path / "twenty.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(source[0]))
        writer.writeheader()
        writer.writerows(reversed(source))
    done = call("predict", trained[1], "twenty.csv", "--output", "deep/predictions.csv", "--json")
    assert done.code == 0, done.err
    assert done.value["rows"] == 20
    assert "predicting: 20/20" in done.err
    assert "it/s]" not in done.err
    predicted = rows_of(tmp_path / "deep" / "predictions.csv")
    assert list(predicted[0]) == ["fname", "summary"]
    assert [row["fname"] for row in predicted] == [row["fname"] for row in reversed(source)]

    references = rows_of(corpus / "test_reference.csv")[:20]
    with (tmp_path / "references.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["fname", "summary"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(references)
    scores = call("score", "deep/predictions.csv", "references.csv", "--json").value
    assert 0 <= scores["rouge1"] <= 1
    assert scores["tokenizer"] == "morpheme"
    assert "ROUGE-1" in call("score", "deep/predictions.csv", "references.csv").out


@pytest.mark.parametrize(
    ("sample", "experiment"), [("reviews", "transfer_bert"), ("emotions", "kobert_emotion")]
)
def test_a_sample_with_classes_is_tables_that_a_classifier_reads(sample, experiment, tmp_path):
    written = call("sample", sample, "--output", sample, "--json").value
    assert list(written) == ["train", "dev", "test", "test_reference"]
    train, test, truth = (rows_of(tmp_path / written[name]) for name in ("train", "test", "test_reference"))
    assert list(train[0]) == ["id", "text", "label"]
    assert list(test[0]) == ["id", "text"]
    assert [row["id"] for row in truth] == [row["id"] for row in test]
    assert {row["label"] for row in truth} <= {row["label"] for row in train}
    files = [f"data.{split}={written[split]}" for split in ("train", "dev")]
    checked = call("train", experiment, "--rehearse", "--dry-run", "data.train_ratio=10%", *files)
    assert checked.code == 0, checked.err
    assert yaml.safe_load(checked.out)["data"]["train_ratio"] == 0.1


def test_a_table_without_ids_is_predicted_without_ids(trained, tmp_path):
    (tmp_path / "plain.csv").write_text('dialogue\n"#Person1#: 안녕\n#Person2#: 네"\n', encoding="utf-8")
    assert call("predict", trained[1], "plain.csv", "-o", "out.csv").code == 0
    assert list(rows_of(tmp_path / "out.csv")[0]) == ["summary"]


def test_perfect_and_empty_predictions_have_the_scores_they_must_have(tmp_path):
    (tmp_path / "truth.csv").write_text("fname,summary\na,만나기로 했다\nb,거절했다\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text('fname,summary\na,""\nb,""\n', encoding="utf-8")
    assert call("score", "truth.csv", "truth.csv", "--json").value["rouge_sum"] == pytest.approx(3)
    empty = call("score", "empty.csv", "truth.csv", "--json").value
    assert (empty["rouge_sum"], empty["num_empty_predictions"]) == (0, 2)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("dure train koba", "kobart_baseline"), ("dure batch se", "seven"), ("dure sc", "schema")],
)
def test_the_shell_completes_verbs_and_names(line, wanted, tmp_path):
    answer = program(
        cwd=tmp_path, _DURE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" "))
    )
    assert wanted in answer.out.split()


def test_the_shell_completes_profiles(tmp_path):
    line = "dure train kobart_baseline --profile rtx"
    answer = program(cwd=tmp_path, _DURE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD="4")
    assert "rtx3090" in answer.out.split()


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    import subprocess
    import sys

    from .conftest import environment

    command = f"{sys.executable} -m dure schema | head -1"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.stdout.strip(), ended.stderr) == ("{", "")


def test_the_sample_dilemmas_are_json_lines_with_nested_targets():
    clean = call("sample", "dilemmas", "--output", "clean", "--json").value
    noisy = call("sample", "dilemmas", "--output", "noisy", "--label-noise", "0.2", "--json").value
    rows, others = (
        [json.loads(line) for line in Path(paths["train"]).read_text(encoding="utf-8").splitlines()]
        for paths in (clean, noisy)
    )
    assert {type(row.get("emotions")) for row in rows} == {list, dict, str, type(None)}
    assert [row["text"] for row in rows] == [row["text"] for row in others]
    assert rows != others
    refused = call("sample", "reviews", "--output", "reviews", "--label-noise", "0.2")
    assert refused.code == 2
    assert "--label-noise" in refused.err
