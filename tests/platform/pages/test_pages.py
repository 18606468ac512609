"""What a page promises: every number names its record, nothing is loaded, and nothing of a user's is ever a tag."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dure
from dure.errors import UserError
from dure.events import Notice
from dure.events.stream import EventLog
from dure.pages import run_facts
from dure.pages.run_page import leave_run_report
from dure.reporting import marks
from dure.reporting.columns import plain_text
from dure.reporting.verifying import verification_text
from dure.runs.folder import RunFolder
from dure.studies.batch.driver import BatchKind
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.results import BatchResults
from dure.studies.kind import Session
from dure.studies.reports import leave_study_report
from dure.studies.study import stored_study
from dure.studies.viewing import View

from .left_folders import (
    HOSTILE,
    STUDIES,
    experiment,
    left_batch,
    left_crossval,
    left_progressive,
    left_run,
    left_seeds,
    left_sweep,
    predictions,
)

PLAIN = {"F1", "XXH3", "UTC"}
"""Words of the page itself that have a digit, or could have one."""


class Parsed(HTMLParser):
    """The tags of a page, and its words beside marks and pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, "every tag is closed in its order"

    def handle_data(self, data):
        if not {"data", "svg", "style", "script"} & set(self._open):
            self.words.append(data)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A folder of every kind of study, and of a run, each with its page."""
    root = tmp_path_factory.mktemp("left")
    for kind, leave in STUDIES.items():
        leave(root / kind)
        leave_study_report(root / kind)
    left_run(root / "run", "run")
    leave_run_report(root / "run")
    return root


KINDS = [*STUDIES, "run"]


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_an_untouched_page_is_true_and_every_digit_on_it_is_a_mark(left, kind):
    found = dure.verify_report(left / kind / "report.html")
    assert found.changes == ()
    assert found.numbers > 50
    assert "all are true" in verification_text(found)
    words = " ".join(Parsed(page_of(left / kind)).words)
    assert set(re.findall(r"\w*\d\w*", words)) <= PLAIN


@pytest.mark.parametrize("kind", KINDS)
def test_every_changed_digit_is_named(left, kind, tmp_path):
    html = page_of(left / kind)
    marks = re.findall(r"<data [^>]*>[^<]*\d[^<]*</data>", html)
    assert len(marks) > 40

    def changed(mark: re.Match[str]) -> str:
        tag, text = re.fullmatch(r"(<data [^>]*>)([^<]*)</data>", mark[0]).groups()
        # The digits of an escape, such as &#34;, are none of the number.
        return f"{tag}{re.sub(r'(?<!&#)(?<!&#3)[0-8]', lambda digit: str(int(digit[0]) + 1), text, count=1)}</data>"

    copy = shutil.copytree(left / kind, tmp_path / kind)
    edited = re.sub(r"<data [^>]*>[^<]*[0-8][^<]*</data>", changed, html)
    (copy / "report.html").write_text(edited, encoding="utf-8")
    changes = dure.verify_report(copy / "report.html").changes
    assert len(changes) == sum(a != b for a, b in zip(re.findall("<data.*?</data>", html, re.DOTALL), re.findall("<data.*?</data>", edited, re.DOTALL), strict=True))  # fmt: skip
    assert all(change.shown != change.recorded and "#" in change.where for change in changes)


def test_a_changed_record_word_and_picture_are_named(left, tmp_path):
    copy = shutil.copytree(left / "batch", tmp_path / "batch")
    html = page_of(copy)
    edited = html.replace("No better than", "Better than").replace("that died and went on", "that died")
    edited = re.sub(r'(<path d="M )\d', r"\g<1>7", edited, count=40)
    (copy / "report.html").write_text(edited, encoding="utf-8")
    told = verification_text(dure.verify_report(copy / "report.html"))
    assert "Curves: a picture that was changed" in told
    assert "Failures and restarts: words" in told

    mark = re.search(r"<data [^>]*>81.25</data>", html)[0]
    (copy / "report.html").write_text(html.replace(mark, "", 1), encoding="utf-8")
    assert "words or looks that were changed" in verification_text(dure.verify_report(copy / "report.html"))

    summary = copy / "experiment_summary.json"
    summary.write_text(summary.read_text("utf-8").replace("0.8125", "0.8135"), encoding="utf-8")
    (copy / "report.html").write_text(html, encoding="utf-8")
    changes = dure.verify_report(copy / "report.html").changes
    assert any(change.shown == "81.25" and change.recorded == "81.35" for change in changes)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (' aria-label="Experiments, best accuracy', ' aria-label="Experiments, best loss', "Experiments"),
        ('<tr class="strong">', "<tr>", "Experiments"),
        ('<data data-at="0:/experiments/0/state"', '<data hidden data-at="0:/experiments/0/state"', "Experiments"),
        ("Verdict</h2>\n<ul>\n<li>", 'Verdict</h2>\n<ul>\n<li value="7">', "Verdict"),
        ("tr.strong{", "td.t{display:none}tr.strong{", "beside the sections"),
        ("</footer>", "<p>one is best</p></footer>", "beside the sections"),
        ("default-src 'none'", "default-src *", "beside the sections"),
    ],
)  # fmt: skip
def test_what_is_heard_and_how_it_looks_is_sealed_too(left, tmp_path, old, new, where):
    copy = shutil.copytree(left / "batch", tmp_path / "batch")
    html = page_of(copy)
    assert old in html
    (copy / "report.html").write_text(html.replace(old, new, 1), encoding="utf-8")
    changes = dure.verify_report(copy / "report.html").changes
    assert where in {change.where for change in changes}


def test_a_page_whose_seal_was_taken_off_is_no_true_page(left, tmp_path):
    copy = shutil.copytree(left / "batch", tmp_path / "batch")
    html = re.sub(r'<html lang="en" data-seal="[^"]*">', '<html lang="en">', page_of(copy))
    (copy / "report.html").write_text(html, encoding="utf-8")
    with pytest.raises(UserError, match="no seal"):
        dure.verify_report(copy / "report.html")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_moves_with_its_runs_and_finds_them_elsewhere_by_root(left, kind, tmp_path):
    moved = shutil.copytree(left / kind, tmp_path / "deep" / kind)
    assert dure.verify_report(moved / "report.html").is_true
    alone = tmp_path / "alone.html"
    shutil.copyfile(moved / "report.html", alone)
    assert dure.verify_report(alone, root=moved).is_true
    with pytest.raises(UserError, match="a record that the report names is not there"):
        dure.verify_report(alone)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_a_user_becomes_a_tag_and_nothing_is_loaded(left, kind):
    html = page_of(left / kind)
    tags = Parsed(html).tags
    assert HOSTILE not in html
    assert [attrs.get("type") for tag, attrs in tags if tag == "script"] == ["application/json"]
    assert not [tag for tag, attrs in tags if tag == "img" or any(name.startswith("on") for name in attrs)]
    links = [
        value for _, attrs in tags for name, value in attrs.items() if name in ("src", "href", "xlink:href")
    ]
    assert all(str(link).startswith(("#", "data:image/png")) for link in links)
    assert "url(http" not in html
    assert "@import" not in html


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_pictures_can_be_heard(left, kind):
    tags = Parsed(page_of(left / kind)).tags
    counts = {name: sum(tag == name for tag, _ in tags) for name in ("table", "caption", "svg", "h1", "main")}
    assert counts["table"] == counts["caption"] > 0
    assert counts["h1"] == counts["main"] == 1
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in tags if tag == "th")
    drawn = [attrs for tag, attrs in tags if tag == "svg"]
    assert len(drawn) == counts["svg"] > 0
    assert all(attrs["role"] == "img" for attrs in drawn)
    ids = [attrs["id"] for tag, attrs in tags if "id" in attrs and tag in ("section", "h2", "main")]
    assert len(ids) == len(set(ids))


def test_a_batch_says_who_is_best_what_failed_and_what_repeats_it(left):
    html = page_of(left / "batch")
    assert "one has the best score of 2 experiments: accuracy 81.25 % on the validation rows." in html
    assert "On the test rows: one and two cannot be told apart by accuracy: 0.00 points, 95 % between" in html
    assert "Failed: three." in html
    assert "killed by signal 9" in html
    assert f"dure run {left / 'batch' / 'study.yaml'} --profile cpu" in html
    assert "typed in the folder that it was started in" in html
    assert (left / "batch" / "training_curves.png").stat().st_size > 10_000


def test_the_terminal_and_the_record_of_a_batch_say_what_its_page_says(tmp_path, cpu):
    left_batch(tmp_path)
    study = stored_study(tmp_path, BatchStudy)
    kind = BatchKind(study, [experiment(name) for name in study.experiments], lambda each: each)
    results = kind.completed(BatchResults.read(tmp_path / kind.results_file), Session(cpu, tmp_path))
    assert [each.split(":")[0] for each in results.sentences] == [
        "one has the best score of 2 experiments",
        "On the test rows",
        "Each was trained by one seed",
    ]
    lines = plain_text(BatchKind.table(results)).splitlines()
    assert set(results.sentences) <= set(lines)
    (tmp_path / "one" / "environment.json").write_text("{", encoding="utf-8")
    assert kind.completed(results.with_values(sentences=()), Session(cpu, tmp_path)).sentences == ()


def test_tests_of_one_seed_say_that_another_seed_is_another_matter(left):
    assert "Each was trained by one seed" in page_of(left / "batch")
    assert "Each was trained by one seed" not in page_of(left / "seeds")


def test_a_batch_of_several_seeds_is_judged_by_its_settings_and_not_by_single_seeds(left):
    html = page_of(left / "seeds")
    words = re.sub(r"<[^>]*>", "", html)
    assert "good: accuracy 81.48 % as a mean over 3 seeds, standard deviation 1.29." in words
    assert "poor: accuracy 51.53 % as a mean over 3 seeds, standard deviation 1.56; no better than the trivial baseline (55.00)." in words  # fmt: skip
    assert "good is better than poor by 29.95 points of accuracy" in words
    assert "81.48 ± 1.29" in words
    assert ">Settings</h2>" in html
    assert "good-seed42 and" not in words
    assert "(Student's t over 3 seeds, p " in words.replace("&#39;", "'")
    assert html.count('<tr class="strong">') == 1
    assert "rows that good-seed42 is reported on" in words


def test_no_setting_stands_out_of_a_tie(tmp_path):
    left_seeds(tmp_path / "m")
    file = tmp_path / "m" / "experiment_summary.json"
    file.write_text(
        file.read_text("utf-8").replace('"verdict": "better"', '"verdict": "tie"'), encoding="utf-8"
    )
    leave_study_report(tmp_path / "m")
    assert '<tr class="strong">' not in page_of(tmp_path / "m")


def test_folds_that_learned_nothing_say_so(tmp_path):
    left_crossval(tmp_path / "c")
    file = tmp_path / "c" / "crossval_results.json"
    record = json.loads(file.read_text("utf-8"))
    for each, baseline in zip(record["experiments"], (0.55, 0.99), strict=True):
        each["baseline"] = baseline
    file.write_text(json.dumps(record), encoding="utf-8")
    leave_study_report(tmp_path / "c")
    said = re.findall(r">([^<]*over 3 folds[^<]*)<", page_of(tmp_path / "c"))
    assert ["no better than the trivial baseline (99.00 on" in each for each in said] == [False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_one_name_all_over_its_page(left, kind):
    def named(caption: str) -> set[str]:
        table = page_of(left / kind).partition(f"<caption>{caption}")[2].partition("</table>")[0]
        return {re.sub("<[^>]*>", "", cell) for cell in re.findall('<th scope="row".*?</th>', table)}

    assert len(named("What was forecast")) > 0
    assert named("What was forecast") <= named("Records of every run")


def test_no_heading_breaks_within_a_word_and_captions_fit_a_phone(left):
    looks = page_of(left / "batch").partition("<style>")[2].partition("</style>")[0]
    headings = [rule for rule in re.findall(r"([^{}]*)\{([^{}]*)\}", looks) if "thead th" in rule[0]]
    assert headings
    assert not [rule for rule in headings if "overflow-wrap" in rule[1]]
    assert re.search(r"caption\{[^}]*max-width:calc\(100vw", looks)
    assert "figure,table,tr,dl{break-inside:avoid}" in looks.partition("@media print")[2]


def test_stages_of_one_score_are_a_tie(tmp_path):
    left_progressive(tmp_path / "p")
    file = tmp_path / "p" / "progressive_training_results.json"
    file.write_text(re.sub(r'"score": 0\.71\b', '"score": 0.7731', file.read_text("utf-8")), encoding="utf-8")
    leave_study_report(tmp_path / "p")
    assert "accuracy 77.31 % on the validation rows; stage 1 tied with it." in page_of(tmp_path / "p")


def test_examples_and_lineage_are_those_of_the_best_stage(tmp_path):
    left_progressive(tmp_path / "p")
    file = tmp_path / "p" / "progressive_training_results.json"
    edited = file.read_text("utf-8").replace(
        '"best_stage": "stage_2_100pct"', '"best_stage": "stage_1_50pct"'
    )
    file.write_text(edited, encoding="utf-8")
    leave_study_report(tmp_path / "p")
    words = re.sub(r"<[^>]*>", "", page_of(tmp_path / "p"))
    assert "Weights of rate_1 stage_1_50pct" in words
    assert "rows that rate_1 stage_1_50pct is reported on" in words


def test_a_kind_without_a_view_shows_the_scores_of_its_trials_and_no_empty_verdict(tmp_path, monkeypatch):
    left_batch(tmp_path / "b")
    monkeypatch.setattr(BatchKind, "view", View)
    monkeypatch.setattr("dure.studies.viewing.failures", lambda trials: [])
    summary = tmp_path / "b" / "experiment_summary.json"
    record = json.loads(summary.read_text("utf-8"))
    summary.write_text(json.dumps({**record, "targets": []}), encoding="utf-8")
    leave_study_report(tmp_path / "b")
    html = page_of(tmp_path / "b")
    words = re.sub(r"<[^>]*>", "", html)
    assert "Trials, by what chose their checkpoints" in words
    scores = [trial.metrics.get("eval_accuracy") for trial in dure.read_results(tmp_path / "b").experiments]
    assert any(scores)
    table = html.partition("by what chose")[2].partition("</table>")[0]
    assert all(f"{100 * score:.2f}" in table for score in scores if score is not None)
    assert ">Verdict<" not in html


def test_a_row_is_right_where_its_score_says_so_however_its_label_is_spelled(tmp_path):
    left_run(tmp_path / "run", "run", 0.8)
    file = tmp_path / "run" / "predictions.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([head, *([*row[:2], f"{row[2]} ", *row[3:]] for row in rows)])
    leave_run_report(tmp_path / "run")
    words = re.sub(r"<[^>]*>", "", page_of(tmp_path / "run"))
    assert "it is right on 16 of them" in words
    assert "Row 0: right" in words
    assert "Row 3: wrong" in words
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([head[:-1], *(row[:-1] for row in rows)])
    leave_run_report(tmp_path / "run")
    words = re.sub(r"<[^>]*>", "", page_of(tmp_path / "run"))
    assert "10 of 21 rows that mine is reported on; rows are numbered from 0." in words
    assert ": wrong" not in words


def test_a_run_says_what_its_rows_leave_open(left):
    html = page_of(left / "run")
    assert (
        "81.25 % on 300 validation rows, which chose the checkpoint; its 95 % interval, as of a share of hits (Wilson), is 76.45 to 85.26."
        in html
    )
    assert "the model is 26.25 percentage points better" in html


def test_a_page_elsewhere_leads_back_to_its_runs(left, tmp_path):
    again = dure.report(left / "batch", tmp_path / "pages" / "again.html")
    assert dure.verify_report(again).is_true


def test_several_are_compared_first_and_the_page_is_true(left, tmp_path):
    for name, seed, rate, shift in (("one", 1, 3e-5, 0), ("two", 1, 1e-4, 1)):
        training = {"best_metric": "eval_accuracy", "learning_rate": rate, "epochs": 3}
        settings = experiment(name, experiment={"name": name, "seed": seed}, training=training)
        left_run(tmp_path / "runs" / name, name, of=settings)
        predictions(tmp_path / "runs" / name / "predictions.csv", 60, shift)
    file = dure.report(
        [tmp_path / "runs" / "one", tmp_path / "runs" / "two"], tmp_path / "runs" / "both.html"
    )
    html = file.read_text("utf-8")
    assert "cannot be told apart" in html
    for heading in ("Scores", "Row by row", "Where they differ most"):
        assert f">{heading}</h2>" in html
    assert "Settings in which they differ" in html
    assert ">training.learning_rate</th>" in html
    curves = html[html.index(">Curves</h2>") :].partition("</figure>")[0]
    assert {">one</text>", ">two</text>"} <= {*re.findall(r">[^<>]+</text>", curves)}
    moved = (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert dure.verify_report(moved / "both.html").is_true
    alone = dure.report([left / "run", left / "sweep"], tmp_path / "both.html")
    assert dure.verify_report(alone).is_true


def test_runs_of_one_name_have_the_names_of_the_table_in_curves_and_headings(tmp_path):
    for folder, rate in (("2026-11-29_1", 3e-5), ("2026-11-29_2", 1e-4)):
        training = {"best_metric": "eval_accuracy", "learning_rate": rate, "epochs": 3}
        settings = experiment("bert", experiment={"name": "bert", "seed": 1}, training=training)
        left_run(tmp_path / folder, "bert", of=settings)
        predictions(tmp_path / folder / "predictions.csv", 60)
    html = dure.report([*tmp_path.iterdir()], tmp_path / "both.html").read_text("utf-8")
    body = html[html.index("<body>") :]
    curves = body[body.index(">Curves</h2>") :].partition("</figure>")[0]
    assert "2026-11-29" not in curves
    for name in ("bert (learning_rate=3e-05)", "bert (learning_rate=0.0001)"):
        assert f">{name}</text>" in curves
        assert re.search(rf"<h2[^>]*><data[^>]*>{re.escape(name)}</data></h2>", body)


def test_a_panel_of_curves_is_no_wider_than_a_phone_and_its_lines_stand_in_their_order(left):
    html = (left / "batch" / "report.html").read_text("utf-8")
    curves = html[html.index(">Curves</h2>") :].partition("</figure>")[0]
    widths = [int(each) for each in re.findall(r"--width:(\d+)px", curves)]
    assert len(widths) == 5
    assert max(widths) <= 366
    names = re.findall(r">(one|two|three)</text>", curves)
    assert names == ["one", "two", "three"]


def test_a_study_of_a_hundred_trials_is_small_and_true(tmp_path):
    left_sweep(tmp_path / "s", 100, points=60)
    leave_study_report(tmp_path / "s")
    assert (tmp_path / "s" / "report.html").stat().st_size < 1_000_000
    assert dure.verify_report(tmp_path / "s" / "report.html").is_true


def test_a_huge_cell_and_a_huge_table_of_predictions_leave_a_page(tmp_path, monkeypatch):
    csv.field_size_limit(131_072)  # as Python has it
    left_run(tmp_path, "run")
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, first, *others = csv.reader(file)
    first[header.index("text")] = "길" * 200_000
    with (tmp_path / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, first, *others])
    leave_run_report(tmp_path)
    assert "Examples" in page_of(tmp_path)
    assert dure.verify_report(tmp_path / "report.html").is_true
    for module in (marks, run_facts):
        monkeypatch.setattr(module, "MAX_RECORD_BYTES", 1000)
    leave_run_report(tmp_path)
    assert "Examples" not in page_of(tmp_path)


def test_lines_that_a_page_leaves_out_are_counted(tmp_path):
    left_run(tmp_path, "run")
    leave_run_report(tmp_path)
    assert "more lines are in events.jsonl" not in page_of(tmp_path)
    log = EventLog(RunFolder(tmp_path).events, "worker 0")
    for number in range(1_400):
        log.write(Notice(f"line {number}"))
    leave_run_report(tmp_path)
    words = " ".join(Parsed(page_of(tmp_path)).words)
    assert "more lines are in events.jsonl" in words
    assert "line 198" in page_of(tmp_path)
    assert "line 199" not in page_of(tmp_path)
    assert "1,201</data>" in page_of(tmp_path)
    assert dure.verify_report(tmp_path / "report.html").is_true


def test_no_file_of_others_is_replaced_and_mistakes_are_named(tmp_path):
    left_batch(tmp_path / "b")
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match="dure did not write"):
        dure.report(tmp_path / "b", tmp_path / "mine.html")
    assert (
        dure.report(tmp_path / "b", tmp_path / "mine.html", force=True)
        .read_text("utf-8")
        .startswith("<!DOCTYPE")
    )
    dure.report(tmp_path / "b", tmp_path / "mine.html")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no run and no study"):
            dure.report(path)
    shutil.copytree(tmp_path / "b", tmp_path / "begun")
    (tmp_path / "begun" / "experiment_summary.json").unlink()
    with pytest.raises(UserError, match="has no results yet"):
        dure.report(tmp_path / "begun")
    with pytest.raises(UserError, match="no report of dure"):
        dure.verify_report(tmp_path / "b" / "study.yaml")
    (tmp_path / "b" / "one" / "result.json").unlink()
    (tmp_path / "b" / "experiment_summary.json").unlink()
    with pytest.raises(UserError, match="not there"):
        dure.verify_report(tmp_path / "mine.html")
