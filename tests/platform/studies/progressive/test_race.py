"""Who goes on in a race, held against successive halving written down plainly, in every order of events."""

from __future__ import annotations

import json
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.metrics.metric import Metric
from dure.studies.progressive.race import Race

ACCURACY = Metric("accuracy", "max", "share")

GOES, DIES, ENDS = "goes on", "leaves while it runs", "leaves with its score"
SCORES = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, 0.5, None, math.nan, math.inf])
BEHAVIOURS = st.sampled_from([GOES] * 6 + [DIES, ENDS])


@st.composite
def studies(draw):
    """A race and what every candidate would do on every rung."""
    num_rungs = draw(st.integers(1, 4))
    num_candidates = draw(st.integers(1, 9))
    rungs = st.lists(st.tuples(SCORES, BEHAVIOURS), min_size=num_rungs, max_size=num_rungs)
    return {
        "num_rungs": num_rungs,
        "plans": draw(st.lists(rungs, min_size=num_candidates, max_size=num_candidates)),
        "reduction": draw(st.integers(1, 4)),
        "direction": draw(st.sampled_from(["min", "max"])),
        "baseline": draw(st.sampled_from([None, None, 0.0, 1.0])),
        "min_gain": draw(st.sampled_from([None, None, 0.5, 1.0])),
    }


def _race(study) -> Race:
    return Race(
        [f"rung {rung}" for rung in range(study["num_rungs"])],
        num_candidates=len(study["plans"]),
        reduction=study["reduction"],
        metric=Metric("score", study["direction"]),
        min_gain=study["min_gain"],
    )


def _reference(study) -> list[tuple[str, int, list[float]]]:
    """Successive halving rung by rung, all at once: state, last rung and scores of every candidate."""
    sign = 1 if study["direction"] == "min" else -1
    plans, last = study["plans"], study["num_rungs"] - 1
    states, scores, ends = ["out"] * len(plans), [[] for _ in plans], [0] * len(plans)
    field, best_before = list(range(len(plans))), None
    for rung in range(study["num_rungs"]):
        able = []
        for one in field:
            ends[one] = rung
            score, behaviour = plans[one][rung]
            if behaviour == DIES or score is None or not math.isfinite(score):
                continue
            scores[one].append(score)
            too_bad = rung == 0 and study["baseline"] is not None and sign * score >= sign * study["baseline"]
            if not too_bad and (behaviour == GOES or rung == last):
                able.append(one)
        best = min((sign * plan[rung] for plan in scores if len(plan) > rung), default=None)
        if rung == last:
            for one in able:
                states[one] = "done"
        elif able:
            gain = None if best_before is None else best_before - best
            if study["min_gain"] is not None and gain is not None and gain < study["min_gain"]:
                for one in able:
                    states[one] = "done"
                break
            able.sort(key=lambda one: (sign * scores[one][rung], one))
            field = able[: max(1, len(field) // study["reduction"])]
        else:
            break
        best_before = best
    return list(zip(states, ends, scores, strict=True))


def _act(race: Race, study, name: str) -> None:
    """Let a running candidate do what it is to do on its rung."""
    rung = race.candidates[name].rung
    score, behaviour = study["plans"][int(name)][rung]
    if behaviour == DIES:
        race.leave(name, "died")
    else:
        race.report(
            name,
            rung,
            score,
            baseline=study["baseline"],
            leaves="ended" if behaviour == ENDS else None,
        )


def _running(race: Race) -> list[str]:
    return [name for name, each in race.candidates.items() if each.state == "running"]


def _again(race: Race, study) -> Race:
    other = _race(study)
    other.restore(json.loads(json.dumps(race.as_dict())))
    return other


def _outcome(race: Race) -> list[tuple[str, int, list[float]]]:
    return [(each.state, each.rung, each.scores) for each in race.candidates.values()]


@settings(max_examples=300, deadline=None)
@given(studies(), st.randoms(use_true_random=False), st.booleans())
def test_whatever_the_order_and_wherever_it_is_restored_the_outcome_is_that_of_plain_halving(
    study, order: Random, restores
):
    race = _race(study)
    absent = [str(place) for place in range(len(study["plans"]))]
    while absent or not race.is_over:
        running = _running(race)
        assert absent or running, "a deadlock"
        if absent and (not running or order.random() < 0.5):
            race.join(absent.pop(0))
        else:
            _act(race, study, order.choice(running))
        if restores:
            race = _again(race, study)
    assert _outcome(race) == _reference(study)


@settings(max_examples=200, deadline=None)
@given(studies(), st.randoms(use_true_random=False))
def test_late_and_repeated_reports_change_nothing(study, order: Random):
    race = _race(study)
    for place in range(len(study["plans"])):
        race.join(str(place))
    while not race.is_over:
        _act(race, study, order.choice(_running(race)))
        before = race.as_dict()
        for name, each in race.candidates.items():
            race.join(name)
            for rung in range(study["num_rungs"]):
                if each.state != "running" or rung != each.rung:
                    race.report(name, rung, 99.0)
            if each.is_over:
                race.leave(name, "again")
        assert race.as_dict() == before


@settings(max_examples=300, deadline=None)
@given(studies(), st.randoms(use_true_random=False), st.integers(0, 30))
def test_from_any_state_a_race_gets_over_once_the_running_ones_report_or_leave(study, order: Random, steps):
    race = _race(study)
    for _ in range(steps):
        names = list(race.candidates)
        event = order.choice(["join", "join", "act", "act", "act", "leave", "back", "close"])
        if event == "join" and len(names) < len(study["plans"]):
            race.join(str(len(names)))
        elif event == "act" and _running(race):
            _act(race, study, order.choice(_running(race)))
        elif event == "leave" and names:
            race.leave(order.choice(names), "left")
        elif event == "back" and names:
            name = order.choice(names)
            if race.candidates[name].scores:
                race.take_back(name, order.randrange(len(race.candidates[name].scores)))
        elif event == "close" and names and order.random() < 0.2:
            race.close()
        for rung in range(race.decided):
            assert not any(
                (each.state, each.rung) == ("waiting", rung) for each in race.candidates.values()
            ), "one waits at a rung that is decided"
    race.close()
    for _ in range(len(race.candidates) * study["num_rungs"]):
        for name in _running(race):
            if order.random() < 0.8:
                _act(race, study, name)
            else:
                race.leave(name, "left")
    assert race.is_over or not race.candidates
    scored = [name for name, each in race.candidates.items() if each.scores]
    assert sorted(race.ranking()) == sorted(scored)


def _field(scores, **settings) -> Race:
    race = Race(["a", "b", "c"], metric=ACCURACY, num_candidates=len(scores), **settings)
    for place in range(len(scores)):
        race.join(str(place))
    for place, score in enumerate(scores):
        race.report(str(place), 0, score)
    return race


def test_of_nine_the_best_three_go_on_and_then_the_best_one():
    race = _field([1, 9, 2, 8, 3, 7, 4, 6, 5], reduction=3)
    assert _running(race) == ["1", "3", "5"]
    for name, score in (("1", 1), ("3", 2), ("5", 3)):
        race.report(name, 1, score)
    assert _running(race) == ["5"]
    race.report("5", 2, 0.0)
    assert race.is_over
    assert race.ranking()[:3] == ["5", "3", "1"]
    assert race.candidates["0"].reason == "beaten at a"


def test_of_equal_ones_the_first_that_joined_go_on():
    assert _running(_field([5.0] * 7, reduction=3)) == ["0", "1"]


def test_a_reduction_of_one_keeps_all_that_have_a_score():
    assert _running(_field([3, None, 1, math.nan], reduction=1)) == ["0", "2"]


def test_at_least_one_goes_on():
    assert _running(_field([1, 2], reduction=9)) == ["1"]


@pytest.mark.parametrize("moment", ["waiting", "with its score"])
def test_the_place_of_one_that_left_goes_to_the_next(moment):
    race = Race(["a", "b"], metric=ACCURACY, num_candidates=3, reduction=3)
    for name in "xyz":
        race.join(name)
    if moment == "waiting":
        race.report("x", 0, 9.0)
        race.leave("x", "stopped by its user")
    else:
        race.report("x", 0, 9.0, leaves="ended")
    race.report("y", 0, 2.0)
    race.report("z", 0, 1.0)
    assert _running(race) == ["y"]


def test_who_is_no_better_than_its_baseline_takes_no_place():
    race = Race(["a", "b"], metric=ACCURACY, num_candidates=2, reduction=2)
    race.join("high")
    race.join("low")
    race.report("high", 0, 0.8, baseline=0.8)
    race.report("low", 0, 0.6, baseline=0.5)
    assert race.candidates["high"].reason == "no better than the trivial baseline 0.8 at a"
    assert _running(race) == ["low"]


def test_a_late_one_goes_on_only_if_it_is_among_the_best_of_all():
    race = _field([4, 3, 2, 1], reduction=4)
    assert _running(race) == ["0"]
    for name, score in (("bad", 3.5), ("good", 4.5)):
        race.join(name)
        race.report(name, 0, score)
    assert race.candidates["bad"].state == "out"
    assert _running(race) == ["0", "good"]
    race.report("0", 1, 1.0)
    assert race.decided == 1, "the late one is on its way"
    race.report("good", 1, 2.0)
    assert _running(race) == ["good"]


def test_when_more_data_gains_too_little_all_are_done_and_late_ones_too():
    race = _field([1.0, 0.9], reduction=1, min_gain=0.1)
    race.report("0", 1, 1.05)
    race.report("1", 1, 0.95)
    assert race.is_over
    assert {each.state for each in race.candidates.values()} == {"done"}
    race.join("late")
    race.report("late", 0, 2.0)
    race.report("late", 1, 3.0)
    assert race.candidates["late"].state == "done"
    race.take_back("0", 1)
    race.report("0", 1, 1.05)
    assert race.candidates["0"].reason == "more data gains less than 0.1"


def test_what_was_lost_is_run_again_and_decides_nothing_anew():
    race = _field([1, 2, 3], reduction=3)
    before = race.as_dict()
    for name in "012":
        race.take_back(name, 0)
        assert name in _running(race)
        race.report(name, 0, int(name) + 1)
    assert race.as_dict() == before


def test_those_that_never_join_hold_nobody_up_once_the_race_is_closed():
    race = Race(["a", "b"], metric=ACCURACY, num_candidates=5, reduction=2)
    for name in "xy":
        race.join(name)
        race.report(name, 0, 1.0)
    assert _running(race) == []
    race.close()
    assert _running(race) == ["x"]


@pytest.mark.parametrize(
    ("labels", "settings"), [([], {}), (["a"], {"num_candidates": 0}), (["a"], {"reduction": 0})]
)
def test_a_race_without_rungs_candidates_or_reduction_is_refused(labels, settings):
    with pytest.raises(ValueError, match="a race needs rungs"):
        Race(labels, metric=ACCURACY, **settings)
