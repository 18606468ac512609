"""What a sweep says of what it measured: ties, noise, rates of 0, the baseline, and what a chosen score is worth."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console
from scipy.stats import binom, binomtest, ttest_1samp, ttest_rel

from dure.config.loading import load_space
from dure.metrics.intervals import difference_of_shares
from dure.metrics.metric import Metric
from dure.reporting import plots
from dure.studies.sweep.plot import noise_of, plot_sweep
from dure.studies.sweep.report import sweep_table
from dure.studies.sweep.results import SweepPoint, SweepResults
from dure.studies.sweep.verdict import mean_interval, share_interval, sweep_verdict

LR = "training.learning_rate"
SPACE = load_space("learning_rate")
ACCURACY, LOSS = Metric("eval_accuracy", "max", "share"), Metric("eval_loss", "min")


def swept(scores, *, metric=ACCURACY, rows=200, losses=None, peaks=None, states=None, more=None, **changes):
    """Return the results of a sweep and its points, from the scores of its trials."""
    names = [f"trial_{place:03d}" for place in range(len(scores))]
    values = {name: {LR: 10.0 ** (place - 5)} for place, name in enumerate(names)}
    states = states or ["completed"] * len(scores)
    trials = [
        {
            "name": name, "state": state, "error": None, "seconds": 1.0, "path": name,
            "metrics": {metric.name: score, "num_dev_rows": rows, **(more or {})} if score is not None else {},
        }
        for name, state, score in zip(names, states, scores, strict=True)
    ]  # fmt: skip
    ended = [name for name, state in zip(names, states, strict=True) if state == "completed"]
    best = metric.best({name: score for name, score in zip(names, scores, strict=True) if name in ended})
    results = SweepResults.model_validate(
        {
            "study": "s", "kind": "sweep", "path": "s", "state": "completed", "started": "now", "seconds": 1.0,
            "metrics": [metric.name], "directions": [metric.direction],
            "definitions": {metric.name: metric.definition()}, "sampler": "grid", "scheduler": "none",
            "parameters": [LR], "values": values, "proposed": values, "best": best,
            "best_values": values.get(best), "front": [], "experiments": trials, **changes,
        }
    )  # fmt: skip
    points = [
        SweepPoint(
            trial=name, state=state, params=values[name], proposed=values[name],
            peak_rate=values[name][LR] if peaks is None else peaks[place], in_warmup=False,
            metrics={metric.name: score}, loss=1.0, eval_loss=score if metric is LOSS else 1.0, losses=(),
            validations=(), stability=None, samples_per_second=None, seconds=1.0, error=None,
        )
        for place, (name, state, score) in enumerate(zip(names, states, scores, strict=True))
    ]  # fmt: skip
    by_name = {} if losses is None else dict(zip(names, losses, strict=True))
    return results.with_values(verdict=sweep_verdict(results, points, by_name)), points


def verdict_of(*args, **more):
    return swept(*args, **more)[0].verdict


def shown(results, width=300):
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(sweep_table(results))
    return file.getvalue()


def test_points_that_tie_to_the_last_digit_have_no_winner():
    results, _ = swept([0.25] * 5)
    assert results.verdict.status == "tie"
    assert results.verdict.winner is None
    assert results.winning_values() == {}
    text = shown(results)
    assert "No winner: all 5 points tie at accuracy 25.00 %. The configured values stay." in text
    assert "*" not in text
    assert text.count("tied with the best") == 4
    assert "flattered" not in text, "of equals none was chosen for its score"


def test_points_that_never_trained_are_no_measurement():
    results, _ = swept([0.25] * 5, peaks=[0.0] * 5)
    assert results.verdict.status == "no_step"
    assert "learning rate ever rose above 0" in results.verdict.sentences[0]
    assert shown(results).count("trained at rate 0") == 5


def test_a_point_that_never_trained_cannot_win_over_those_that_did():
    found = verdict_of([0.9, 0.3, 0.8], peaks=[0.0, 1e-4, 1e-3])
    assert found.winner == "trial_002"
    assert found.never_rose == ("trial_000",)
    assert "Not ranked, since the learning rate never rose above 0: trial_000." in found.sentences


def test_differences_within_the_noise_of_the_rows_have_no_winner_and_larger_ones_do():
    small = verdict_of([0.80, 0.82, 0.84, 0.83, 0.81], rows=100)
    assert small.status == "noise"
    assert (
        "differ by at most 4.00 percentage points, within the noise of 100 validation rows"
        in small.sentences[0]
    )
    # The same scores over many rows are a measurement.
    large = verdict_of([0.80, 0.82, 0.84, 0.83, 0.81], rows=20_000)
    assert large.winner == "trial_002"
    assert "trial_003" in large.equals
    assert "trial_000" not in large.equals
    assert "not told apart from trial_003" in large.sentences[1]


def test_a_macro_f1_that_rests_on_a_rare_class_wins_nothing_by_a_few_of_its_rows():
    # 10 of 1,000 rows are of one class; 5 of them are found.
    rare = {"a": (0.995, 0.99, 990.0), "b": (1 / 3, 0.5, 10.0)}
    figures = {
        f"eval_{name}[{label}]": value
        for label, values in rare.items()
        for name, value in zip(("precision", "recall", "support"), values, strict=True)
    }
    macro = Metric("eval_macro_f1", "max", "share")
    found = verdict_of([0.64, 0.70, 0.72], metric=macro, rows=1000, more=figures)
    assert found.status == "noise"
    assert "since classes are rare" in found.sentences[-1]
    assert verdict_of([0.64, 0.70, 0.72], metric=macro, rows=1000).winner == "trial_002"


def test_of_two_equal_best_points_the_first_is_taken_and_the_tie_is_told():
    verdict = verdict_of([0.95, 0.95, 0.94, 0.5])
    assert (verdict.status, verdict.winner) == ("winner", "trial_000")
    assert "It ties with trial_001: of equal points the first is taken." in verdict.sentences
    assert any(each.startswith("It is not told apart from trial_002: within") for each in verdict.sentences)


def test_the_best_must_beat_the_trivial_baseline():
    found = verdict_of([0.2, 0.5, 0.25], rows=1000, more={"baseline_accuracy": 0.5})
    assert found.status == "baseline"
    assert found.winner is None
    assert "no better than the trivial baseline (50.00)" in found.sentences[0]
    good = verdict_of([0.2, 0.9, 0.25], rows=1000, more={"baseline_accuracy": 0.5})
    assert good.winner == "trial_001"
    assert good.below_baseline == ("trial_000", "trial_002")
    assert "No better than the trivial baseline (50.00): trial_000 and trial_002." in good.sentences


def test_a_best_point_within_the_noise_of_the_baseline_is_told():
    found = verdict_of([0.42, 0.41], rows=100, more={"baseline_accuracy": 0.4})
    assert (
        "Not even the best, trial_000, is certainly better than the trivial baseline (40.00)."
        in found.sentences
    )


def test_the_score_of_the_best_is_said_to_be_flattered_with_what_is_known_instead():
    tested = verdict_of([0.2, 0.9, 0.25], more={"test_accuracy": 0.8})
    assert any("flattered" in each and "test rows" in each and "80.00" in each for each in tested.sentences)
    # What the test rows bear out is chosen all the same, and not called flattered.
    borne_out = verdict_of([0.2, 0.9, 0.25], more={"test_accuracy": 0.9}).sentences
    chosen = "90.00 was chosen as the best of 3; on the test rows, which chose nothing, trial_001 has 90.00."
    assert chosen in borne_out
    # Without test rows: the interval that holds whichever of the three was chosen (Bonferroni), by scipy.
    untested = verdict_of([0.2, 0.9, 0.25])
    expected = binomtest(180, 200).proportion_ci(1 - 0.05 / 3, method="wilson")
    assert untested.interval == pytest.approx((expected.low, expected.high))
    assert any(
        f"{100 * expected.low:.2f} to {100 * expected.high:.2f}" in each for each in untested.sentences
    )


def test_losses_of_the_same_rows_are_compared_in_pairs():
    rng = np.random.default_rng(0)
    hard = rng.gamma(1.0, 2.0, 60)  # what makes a row hard for all points is far more than their differences
    losses = [(hard + shift + rng.normal(0, 0.02, 60)).tolist() for shift in (0.3, 0.0, 0.001)]
    found = verdict_of([float(np.mean(each)) for each in losses], metric=LOSS, rows=60, losses=losses)
    assert found.rule == "paired losses"
    best = found.winner
    other = "trial_002" if best == "trial_001" else "trial_001"
    assert {best, other} == {"trial_001", "trial_002"}
    assert found.equals == (other,)
    # Bonferroni over the three pairs, by scipy's paired t-test.
    expected = ttest_rel(losses[0], losses[int(best[-1])]).confidence_interval(1 - 0.05 / 3)
    gap = found.gaps["trial_000"]
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high))
    assert gap.value == pytest.approx(np.mean(losses[0]) - np.mean(losses[int(best[-1])]))


def test_where_noise_is_not_known_that_is_said_and_only_ties_have_no_winner():
    rouge = Metric("eval_rouge_sum", "max", "percent")
    found = verdict_of([0.6, 0.7], metric=rouge)
    assert (found.rule, found.winner) == ("unknown", "trial_001")
    assert any("is not known" in each for each in found.sentences)
    assert verdict_of([0.7, 0.7], metric=rouge).status == "tie"


@pytest.mark.parametrize(
    ("scores", "states", "status"),
    [
        ([0.9], ["completed"], "single"),
        ([0.9, None], ["completed", "diverged"], "winner"),
        ([None, None], ["diverged", "failed"], "nothing"),
    ],
)
def test_a_lone_point_wins_only_over_points_that_were_given_up(scores, states, status):
    found = verdict_of(scores, states=states)
    assert found.status == status
    assert ("as the only one of 2 points" in found.sentences[0]) == (status == "winner")


def test_a_rehearsal_says_that_its_rates_are_its_own():
    results, _ = swept([0.2, 0.9], is_rehearsal=True)
    assert "the learning rates are those that the miniatures trained at" in results.verdict.sentences[-1]


def test_pure_noise_seldom_has_a_winner():
    """Twenty points that are all alike: at most one sweep in twenty may find something."""
    rng = np.random.default_rng(1)
    won = sum(
        verdict_of((rng.binomial(100, 0.7, 20) / 100).tolist(), rows=100).winner is not None
        for _ in range(60)
    )
    assert won <= 6


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.9, 0.7), (0.97, 0.97), (0.2, 0.6)])
def test_the_interval_of_two_shares_holds_the_truth_as_often_as_it_says(first, second):
    """Over all tables of 25 rows, each as likely as the binomial distribution has it."""
    rows = np.arange(26)
    held = sum(
        binom.pmf(ours, 25, first) * binom.pmf(theirs, 25, second)
        for ours in rows
        for theirs in rows
        if (ends := difference_of_shares(ours / 25, theirs / 25, 25, 0.95))[0] <= first - second <= ends[1]
    )
    assert held > 0.93


@given(hits=st.integers(0, 40), level=st.floats(0.5, 0.999))
@settings(max_examples=50, deadline=None)
def test_the_interval_of_a_share_is_wilsons(hits, level):
    expected = binomtest(hits, 40).proportion_ci(level, method="wilson")
    assert share_interval(hits / 40, 40, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(3).exponential(2, 30)
    expected = ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval(values.tolist(), 0.9) == pytest.approx((expected.low, expected.high))
    assert mean_interval([2.0, 2.0, 2.0], 0.9) == (2.0, 2.0)


def draw(path: Path, *args, **more):
    results, points = swept(*args, **more)
    plot_sweep(path, results, points, SPACE)
    return results.verdict


def pixels(path: Path, colour: str) -> int:
    wanted = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return int((abs(imread(path)[:, :, :3] - wanted).max(axis=2) < 0.02).sum())


def test_the_picture_has_baseline_and_noise_and_a_star_only_for_a_winner(tmp_path):
    won, tied = tmp_path / "won.png", tmp_path / "tied.png"
    draw(won, [0.3, 0.9, 0.5], more={"baseline_accuracy": 0.4})
    draw(tied, [0.41, 0.42, 0.415], rows=100)
    assert pixels(won, plots.GREEN) > 100
    assert pixels(won, plots.VERMILION) > 300
    assert pixels(tied, plots.GREEN) == 0
    assert pixels(tied, plots.VERMILION) == 0


def test_the_axis_is_never_shorter_than_the_noise(tmp_path):
    from matplotlib.figure import Figure

    from dure.studies.sweep import plot

    results, points = swept([0.41, 0.42, 0.415], rows=100)
    axis = Figure().subplots()
    words = {name: english for name, (_, english) in plot._WORDS.items()}
    plot._draw_levels(axis, points, ACCURACY, results.verdict, words)
    low, high = axis.get_ylim()
    assert high - low >= 100 * noise_of(results.verdict)
    assert not math.isclose(noise_of(results.verdict), 0)


def test_points_that_are_equal_are_drawn_on_an_axis_of_some_length(tmp_path):
    for place, (scores, peaks) in enumerate((([0.25] * 3, None), ([0.0, 0.0], [0.0, 0.0]), ([None], None))):
        states = ["completed" if score is not None else "failed" for score in scores]
        draw(tmp_path / f"{place}.png", scores, peaks=peaks, states=states)
        assert (tmp_path / f"{place}.png").is_file()
