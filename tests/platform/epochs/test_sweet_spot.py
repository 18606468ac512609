from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.epochs.loss_series import Point, series_of
from dure.epochs.sweet_spot import (
    Thresholds,
    analysis_record,
    candidate_epochs,
    epoch_scores,
    epochs_that_meet,
    sweet_spot,
)
from dure.errors import UserError

PLATEAU = [1.0, 0.8, 0.65, 0.55, *[0.500 + 0.001 * (-1) ** epoch for epoch in range(5, 17)]]


def series(losses, *, train=None, step=1):
    """Make a series whose training loss lies ``train`` beneath the validation loss, or is a list."""
    trains = (
        train if isinstance(train, list) else [None if train is None else loss - train for loss in losses]
    )
    pairs = zip(trains, losses, strict=True)
    return [Point(step * (place + 1), below, loss) for place, (below, loss) in enumerate(pairs)]


def test_on_a_plateau_all_criteria_are_met_and_the_voters_agree():
    found = sweet_spot(series(PLATEAU, train=0.05))
    # A window of five that ends at 9 holds 5 … 9, the first without the descent.
    assert found.met["stable"] == tuple(range(9, 17))
    assert found.met["converged"] == tuple(range(9, 17))
    assert found.met["fitting"] == tuple(range(1, 17))
    assert found.met["low"] == tuple(range(5, 17))
    assert found.votes["criteria"] == 9
    assert found.epoch in (9, 11)
    assert found.confidence >= 0.5
    assert found.trend == "level"


def test_a_diverging_module_was_at_its_best_before_it():
    losses = [1.0, 0.7, 0.6, 0.7, 0.9, 1.2, 1.6, 2.1, 2.7, 3.4]
    found = sweet_spot(series(losses))
    assert found.epoch == 3
    assert found.votes == {"lowest": 3, "criteria": None, "plateau": None, "score": 3}
    assert found.confidence == 0.5
    assert found.trend == "rising"


def test_a_module_that_overfits_has_its_sweet_spot_before_the_gap_opens():
    flat = [0.9, 0.6, *[0.5] * 10]
    trains = [0.9, 0.6, *[0.45] * 5, 0.39, 0.36, 0.3, 0.2, 0.1]
    points = series(flat, train=trains)
    assert epochs_that_meet(points)["fitting"] == (1, 2, 3, 4, 5, 6, 7)
    found = sweet_spot(points)
    assert found.votes["criteria"] == 7
    assert found.epoch is not None
    assert found.epoch <= 7


def test_a_module_that_never_converges_is_best_at_its_end_and_is_still_falling():
    points = series([10 * 0.9**epoch for epoch in range(20)])
    found = sweet_spot(points)
    assert epochs_that_meet(points)["converged"] == epochs_that_meet(points)["plateau"] == ()
    assert found.epoch == 20
    assert found.trend == "falling"
    assert found.votes["criteria"] is None


def test_noise_is_not_stable_though_it_has_no_trend():
    draw = random.Random(0)
    points = series([0.5 + draw.uniform(-0.1, 0.1) for _ in range(20)])
    found = sweet_spot(points)
    assert epochs_that_meet(points)["stable"] == ()
    assert len(epochs_that_meet(points)["plateau"]) > 8
    assert found.votes["criteria"] is None
    assert found.votes["lowest"] == min(points, key=lambda point: point.eval_loss).epoch


def test_one_epoch_is_the_best_there_is_and_says_nothing():
    found = sweet_spot(series([0.5], train=0.0))
    assert found.epoch == 1
    assert found.verdict == "too_few_epochs"
    assert found.confidence is None
    assert found.met == {"low": (1,), "stable": (), "fitting": (1,), "converged": (), "plateau": ()}
    assert found.trend == "too_few_epochs"


@pytest.mark.parametrize(("num_epochs", "verdict"), [(4, "too_few_epochs"), (5, "found")])
def test_a_sweet_spot_is_found_as_soon_as_one_window_is_full(num_epochs, verdict):
    found = sweet_spot(series([1.0 - 0.1 * epoch for epoch in range(num_epochs)]))
    assert found.verdict == verdict
    assert (found.confidence is None) == (verdict == "too_few_epochs")
    assert found.trend == "too_few_epochs"


def test_a_module_without_a_finite_loss_has_no_sweet_spot():
    for losses in ([], [math.nan, math.inf]):
        found = sweet_spot(series(losses))
        assert (found.epoch, found.confidence, found.scores) == (None, 0.0, {})
    assert found.trend == "diverged"


def test_epochs_and_never_places_in_the_list_are_reported():
    points = [Point(2 * point.epoch, None, point.eval_loss) for point in series(PLATEAU)]
    assert epochs_that_meet(points)["stable"] == tuple(range(18, 33, 2))
    assert set(epoch_scores(points)) == set(range(2, 33, 2))
    del points[3]
    found = sweet_spot(points)
    assert 8 not in found.scores
    assert found.epoch is not None
    assert found.epoch % 2 == 0


def test_a_window_with_a_loss_that_is_not_finite_is_neither_stable_nor_converged_nor_a_plateau():
    losses = [0.5] * 20
    losses[9] = math.nan
    points = series(losses)
    assert (
        epochs_that_meet(points)["stable"]
        == epochs_that_meet(points)["converged"]
        == (5, 6, 7, 8, 9, 15, 16, 17, 18, 19, 20)
    )
    assert epochs_that_meet(points)["plateau"] == (8, 9, 18, 19, 20)
    assert 10 not in epochs_that_meet(points)["low"]


def test_only_saved_epochs_are_named():
    found = sweet_spot(series(PLATEAU), saved=range(2, 17, 2))
    assert all(vote is None or vote % 2 == 0 for vote in found.votes.values())
    assert sweet_spot(series(PLATEAU), saved=()).epoch is None


def test_thresholds_draw_the_lines_that_they_say():
    points = series([1.0, 0.99, 1.01, 1.0, 1.0], train=0.2)
    assert epochs_that_meet(points)["stable"] == (5,)  # the standard deviation is 0.0063
    assert epochs_that_meet(points, Thresholds(max_std=0.006))["stable"] == ()
    assert epochs_that_meet(points)["fitting"] == ()
    assert len(epochs_that_meet(points, Thresholds(max_gap=0.3))["fitting"]) == 5
    assert epochs_that_meet(points, Thresholds(window=2))["stable"] == (
        2,
        4,
        5,
    )  # the third is 0.01 and not below it
    assert epochs_that_meet(points, Thresholds(low_within=0.0))["low"] == (2,)


def test_the_score_weighs_the_degrees_of_the_criteria():
    scores = epoch_scores(series([0.5, 0.5, 0.5, 0.5, 0.5, 0.525], train=0.1), Thresholds(low_within=0.025))
    # At its threshold a criterion counts ½: here the gap of 0.1, and in the first epoch there are no windows.
    assert scores[1] == pytest.approx((0.5 / 3) ** 0.6)
    assert scores[5] == pytest.approx((2.5 / 3) ** 0.6)
    # As far above the lowest as is low; the last window's standard deviation is 0.01, and its change is 5 %.
    assert scores[6] == pytest.approx(0.5**0.4 * ((0.5 + 0.5 + 1 / 6) / 3) ** 0.6)


losses = st.one_of(st.floats(-1, 1), st.sampled_from([0.0, 0.5, 0.5001, 0.51, math.nan]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(losses, st.one_of(st.none(), losses), st.booleans()), max_size=16),
    st.sampled_from([Thresholds(), Thresholds(window=2, trend_window=3, max_std=0.3, low_within=0.3)]),
)
def test_what_is_named_in_the_end_was_a_candidate_ever_since(epochs, thresholds):
    points = [Point(epoch, train, loss) for epoch, (loss, train, _) in enumerate(epochs, start=1)]
    saved = {epoch for epoch, (_, _, is_saved) in enumerate(epochs, start=1) if is_saved}
    kept = [
        candidate_epochs(points[:end], thresholds, saved={epoch for epoch in saved if epoch <= end})
        for end in range(1, len(points) + 1)
    ]
    for named in sweet_spot(points, thresholds, saved=saved).votes.values():
        assert named is None or all(named in candidates for candidates in kept[named - 1 :])


def test_few_epochs_are_candidates_at_a_time():
    draw = random.Random(1)
    most = 0
    points: list[Point] = []
    for epoch in range(1, 61):
        loss = 0.5 + 0.8 * 0.85**epoch + draw.gauss(0, 0.004)
        points.append(Point(epoch, loss - 0.003 * epoch, loss))
        most = max(most, len(candidate_epochs(points)))
    assert most <= 8


def test_the_record_is_json_and_holds_epochs(tmp_path):
    points = {"head": series([*PLATEAU, math.nan], train=0.05)}
    record = analysis_record(points)
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["modules"]["head"]["epoch"] in (9, 11)
    assert again["modules"]["head"]["series"][-1] == {"epoch": 17, "train_loss": None, "eval_loss": None}


def write(tmp_path, *records):
    lines = [json.dumps({"kind": kind, "epoch": epoch, **rest}) for kind, epoch, rest in records]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_series_of_a_run_are_read_by_task_and_by_epoch(tmp_path):
    write(
        tmp_path,
        ("eval", 0.0, {"untrained_loss": 9.0}),
        ("train", 0.5, {"loss": 2.0, "loss_regret": 1.0}),
        ("eval", 0.5, {"eval_loss": 7.0}),
        ("train", 1.0, {"loss": 1.0, "loss_regret": 0.5}),
        ("eval", 1.0, {"eval_loss": 1.5, "eval_loss_regret": 0.7, "eval_accuracy": 0.1}),
        ("train", 2.0, {"loss": 0.5}),
        ("eval", 2.0, {"eval_loss": None, "eval_loss_regret": 0.6}),
        ("eval", 2.0, {"test_loss": 5.0}),
    )
    found = series_of(tmp_path, ["backbone", "heads.regret"], {"heads.regret": "eval_loss_regret"})
    assert found["heads.regret"] == [Point(1, 0.75, 0.7), Point(2, None, 0.6)]
    assert found["backbone"][0] == Point(1, 1.5, 1.5)
    assert math.isnan(found["backbone"][1].eval_loss)
    with pytest.raises(ValueError, match="no validation loss"):
        series_of(tmp_path, ["backbone"], {"backbone": "eval_accuracy"})
    with pytest.raises(UserError, match="eval_loss_joy was never"):
        series_of(tmp_path, ["backbone"], {"backbone": "eval_loss_joy"})


def test_a_run_without_validation_is_told(tmp_path):
    write(tmp_path, ("train", 1.0, {"loss": 1.0}))
    with pytest.raises(UserError, match="never recorded"):
        series_of(tmp_path, ["encoder"])
