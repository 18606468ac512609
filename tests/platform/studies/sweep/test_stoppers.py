"""What a stopper decides after a resume: the same as at one go. No model, and no Ray but its schedulers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.studies.sweep.stoppers import AshaStopper, MedianStopper

BETWEEN, TOTAL = 8, 96
TIMES = range(BETWEEN, TOTAL + 1, BETWEEN)


@dataclass(eq=False)
class Trial:
    """As much of Tune's trial as its schedulers look at."""

    trial_id: str
    config: dict = field(default_factory=dict)


def asha():
    return AshaStopper(
        time_attr="samples",
        metric="eval_loss",
        mode="min",
        grace_period=BETWEEN,
        reduction_factor=3,
        max_t=2 * TOTAL,
    )


def median():
    return MedianStopper(
        time_attr="samples", metric="eval_loss", mode="min", grace_period=BETWEEN, min_samples_required=3,
        min_time_slice=math.inf,
    )  # fmt: skip


def reports(curve):
    """Return what a trial reports: its loss after every batch of four, a validation after every second."""
    for time, loss in zip(TIMES, curve, strict=True):
        yield {"kind": "train", "samples": time - 4, "loss": loss}
        yield {"kind": "eval", "samples": time, "eval_loss": loss}
    yield {"kind": "eval", "samples": TOTAL, "test_loss": curve[-1]}


def run(stopper, name, tail, trial_id):
    """Run a trial, or the rest of it, and return what it reported and whether it was stopped."""
    trial = Trial(trial_id, {"trial": name})
    stopper.on_trial_add(None, trial)
    seen = []
    for report in tail:
        seen.append(report)
        if stopper.on_trial_result(None, trial, report) == "STOP":
            stopper.on_trial_complete(None, trial, report)
            return seen, True
    stopper.on_trial_complete(None, trial, seen[-1])
    return seen, False


curves = st.lists(
    st.lists(st.integers(1, 40).map(lambda n: n / 8), min_size=len(TIMES), max_size=len(TIMES)),
    min_size=2,
    max_size=9,
)


@pytest.mark.parametrize("make", [asha, median])
@given(curves=curves, data=st.data())
def test_a_stopper_stops_the_same_trials_at_the_same_time_after_a_cut(make, curves, data):
    alone = make()
    whole = [run(alone, f"trial_{place}", reports(curve), f"id{place}") for place, curve in enumerate(curves)]

    at = data.draw(st.integers(0, len(curves) - 1))
    kept = data.draw(st.integers(0, len(whole[at][0]) - 1))  # its checkpoint, before its last report
    again = data.draw(st.integers(0, 3))  # the checkpoint was broken, and an older one is taken
    stopper = make()
    for place in range(at):
        stopper.remember(f"trial_{place}", whole[place][0], is_over=True)
    stopper.remember(f"trial_{at}", whole[at][0][:kept], is_over=False)
    for place in range(at, len(curves)):
        tail = list(reports(curves[place]))
        from_here = max(0, kept - again) if place == at else 0
        seen, is_stopped = run(stopper, f"trial_{place}", tail[from_here:], f"other{place}")
        assert (seen, is_stopped) == (whole[place][0][from_here:], whole[place][1]), place


@pytest.mark.parametrize("make", [asha, median])
def test_without_its_memory_a_stopper_would_let_a_bad_trial_run(make):
    good, bad = [1.0] * len(TIMES), [3.0] * len(TIMES)
    fresh, told = make(), make()
    for place in range(3):
        told.remember(f"trial_{place}", list(reports(good)), is_over=True)
    assert not run(fresh, "trial_3", reports(bad), "id3")[1]
    seen, is_stopped = run(told, "trial_3", reports(bad), "id3")
    assert is_stopped
    assert seen[-1]["samples"] == BETWEEN


def test_the_median_rule_bears_trials_that_end_on_a_report_without_the_metric():
    stopper = median()
    for place in range(4):
        seen, is_stopped = run(stopper, f"trial_{place}", reports([1.0] * len(TIMES)), f"id{place}")
        assert "test_loss" in seen[-1]
        assert not is_stopped


def test_what_was_not_finite_is_remembered_as_such():
    stopper = asha()
    stopper.remember("trial_0", [{"samples": BETWEEN, "eval_loss": math.nan}], is_over=True)
    stopper.remember("trial_1", [{"samples": BETWEEN, "eval_loss": 1.0}], is_over=True)
    assert run(stopper, "trial_2", reports([3.0] * len(TIMES)), "id2")[1]
