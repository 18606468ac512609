"""Numbers as targets: formulas against independent ones, runs and predictions, and what is refused."""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression
from torch.nn import functional

from dure import api
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.testing import check_family
from dure.metrics.metric import Metric
from dure.metrics.numbers import NumberReader, are_measures, number_report
from dure.modeling.objectives import SquaredError
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest, run
from trainables.transfer.numbers import trivial_numbers

SCORES = ("0.0", "2.5", " 5 ", "-1e1")
ROWS = [
    (f"오늘은 {word} 이야기를 {number}번 들었다", SCORES[number % 4])
    for number, word in enumerate("가나다라마바사아자차카타" * 2)
]


def silent(message: str) -> None:
    pass


def with_numbers(tiny, folder, rows=ROWS, **more) -> Experiment:
    """The experiment on a table whose labels are numbers."""
    for name in ("train", "dev"):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            found = rows if name == "train" else [(f"새 {text}", label) for text, label in rows[:7]]
            csv.writer(file).writerows([("text", "label"), *found])
    experiment = tiny("bert", "full", task={"target": "number"}, best_metric="eval_pearson", **more)
    data = {"data.train": str(folder / "train.csv"), "data.dev": str(folder / "dev.csv")}
    return experiment.with_(data)


finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=30))
def test_figures_are_those_of_independent_formulas(pairs) -> None:
    true, guessed = map(list, zip(*pairs, strict=True))
    report = number_report(true, guessed)
    assert report["mse"] == pytest.approx(statistics.fmean((a - b) ** 2 for a, b in pairs))
    if min(numpy.ptp(true), numpy.ptp(guessed)) > 1e-3:
        # A correlation is the square root of what a straight line explains, with the sign of its slope.
        line = LinearRegression().fit(numpy.array([true]).T, guessed)
        explained = line.score(numpy.array([true]).T, guessed)
        expected = numpy.sqrt(max(explained, 0)) * numpy.sign(line.coef_[0])
        assert report["pearson"] == pytest.approx(expected, abs=1e-5)
        assert report["pearson"] == pytest.approx(stats.pearsonr(true, guessed).statistic, abs=1e-9)
        assert report["spearman"] == pytest.approx(stats.spearmanr(true, guessed).statistic, abs=1e-9)


def test_nothing_correlates_with_a_constant() -> None:
    assert number_report([1, 2, 3], [2, 2, 2]) == {
        "pearson": 0.0,
        "spearman": 0.0,
        "mse": pytest.approx(2 / 3),
    }
    assert number_report([2, 2], [1, 3])["pearson"] == 0.0


def test_the_trivial_prediction_is_the_mean_of_the_training_rows() -> None:
    figures = trivial_numbers(numpy.array([1.0, 5.0]), numpy.array([3.0, 4.0, 8.0]))
    mse = (0 + 1 + 25) / 3
    assert figures == {"eval_pearson": 0, "eval_spearman": 0, "eval_mse": mse, "eval_loss": mse}


def test_the_loss_is_the_mean_squared_error_of_the_step() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 1, requires_grad=True), torch.randn(6)
    objective = SquaredError()
    whole = objective({"logits": logits}, labels)
    torch.testing.assert_close(whole, functional.mse_loss(logits[:, 0], labels))
    (expected,) = torch.autograd.grad(whole, logits)
    parts = [objective({"logits": logits[part]}, labels[part], 6) for part in (slice(4), slice(4, None))]
    (found,) = torch.autograd.grad(sum(parts), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cell", ["drei", "nan", "inf", "1,5", "0x10", "1e39", "1_000"])
def test_a_cell_that_is_no_finite_number_is_refused_with_its_row(cell, tiny, tmp_path) -> None:
    family = load_family(with_numbers(tiny, tmp_path, [*ROWS, ("ein Text", cell)]))
    with pytest.raises(UserError) as caught:
        load_corpus(family, notify=silent)
    assert f"row {len(ROWS) + 1}" in caught.value.where
    if cell != "nan":  # which is a missing value, and told as one
        assert "a number, such as 3.5" in caught.value.expected


def test_a_reader_leaves_a_number_as_it_is_written() -> None:
    assert NumberReader().read(" 2.50 ") == "2.50"


@pytest.mark.parametrize(
    ("classes", "measures"),
    [
        (("0.2", "1.0", "3.6"), True),
        (("-.5", "2.5"), True),
        (("0", "1", "2.0"), False),
        (("1.5", "v2"), False),
    ],
)
def test_classes_that_are_numbers_with_fractions_are_told(classes, measures) -> None:
    assert are_measures(classes) == measures


def test_a_run_is_chosen_by_correlation_and_predicts_numbers(tiny, cpu, tmp_path) -> None:
    told: list[str] = []
    experiment = with_numbers(tiny, tmp_path)
    family = load_family(experiment, told.append)
    assert family.best_metric == Metric("eval_pearson", "max")
    load_corpus(family, notify=silent)
    assert any("numbers from -10 to 5, mean -0.625" in line for line in told)
    result = run(RunRequest(experiment, cpu, tmp_path / "run"))
    metrics = result.metrics
    assert metrics["eval_mse"] == pytest.approx(metrics["eval_loss"], rel=1e-5)
    assert metrics["baseline_mse"] == pytest.approx(metrics["baseline_loss"])
    assert metrics["baseline_pearson"] == 0
    (tmp_path / "new.csv").write_text("text\n가나다 이야기\n라마바 이야기를 들었다\n", encoding="utf-8")
    api.predict(
        RunFolder(tmp_path / "run").path,
        tmp_path / "new.csv",
        tmp_path / "out.csv",
        profile=cpu,
        progress=lambda done, all: None,
        notify=silent,
    )
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["label"], ["label"]]
    assert all(numpy.isfinite(float(row["label"])) for row in rows)
    assert family.combine([[{"label": 1.0}], [{"label": 4.0}]]) == [{"label": 2.5}]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_numbers_of_pairs_keep_the_contract(kind, tiny, cpu, tmp_path) -> None:
    experiment = tiny(
        "bert", kind, task={"target": "number"}, objective={"r_drop": 0.5}, best_metric="eval_spearman"
    ).with_({"data.columns": {"text_pair": "text_pair"}})
    check_family(experiment, tmp_path, profile=cpu, runs=False)


@pytest.mark.parametrize(("name", "value"), [("label_smoothing", 0.1), ("class_weights", "balanced")])
def test_what_only_classes_have_is_refused(name, value, tiny) -> None:
    with pytest.raises(UserError, match="there are no classes") as caught:
        load_family(tiny("bert", "full", task={"target": "number"}, objective={name: value}))
    assert f"objective.{name}" in caught.value.where


def test_equal_numbers_and_the_embedded_reviews_are_refused(tiny, tmp_path) -> None:
    family = load_family(with_numbers(tiny, tmp_path, [(text, "3") for text, _ in ROWS]))
    with pytest.raises(UserError, match="every row has the number 3"):
        load_corpus(family, notify=silent)
    with pytest.raises(UserError, match="no numbers") as caught:
        load_family(tiny("bert", "full", task={"target": "number"})).sample("train")
    assert "text_pair" in caught.value.hint


def test_folds_of_numbers_are_told_to_be_cut_at_random(tiny, tmp_path) -> None:
    told: list[str] = []
    experiment = with_numbers(tiny, tmp_path).with_(
        {"data.dev": None, "data.fold": {"number": 1, "of": 3}, "data.max_dev_rows": None}
    )
    corpus = load_corpus(load_family(experiment, told.append), notify=told.append)
    assert "folds are cut at random: numbers have no classes of which each could have its share" in told
    assert len(corpus.train) + len(corpus.dev) + len(corpus.test) == len(ROWS)


def test_numbers_far_from_one_are_told(tiny, tmp_path) -> None:
    told: list[str] = []
    rows = [(text, str(1000 * place)) for place, (text, _) in enumerate(ROWS)]
    load_corpus(load_family(with_numbers(tiny, tmp_path, rows), told.append), notify=silent)
    assert any("rescale the column" in line for line in told)


def test_scoring_numbers_takes_no_memory_that_a_forecast_does_not_see() -> None:
    program = (
        "import sys, numpy\n"
        "from dure.metrics.numbers import number_report\n"
        "from trainables.red_heart.scores import scores_of\n"
        "number_report([1, 2, 2], [3, 1, 2])\n"
        "names = {'emotion': ('a', 'b'), 'bentham': ('c',), 'regret': ('d',), 'surd': ('e',)}\n"
        "scores_of(numpy.eye(5), numpy.eye(5), names)\n"
        "print('scipy.stats' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
