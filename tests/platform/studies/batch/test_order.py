"""A batch starts its longest trials first, and what it tells of them keeps the order in which they are named."""

from __future__ import annotations

import pytest

from dure.config.rehearsal import rehearsal_of
from dure.studies.batch.planning import plan_batch
from dure.studies.batch.strategy import Batch, training_work

MEASURED = {
    "batch_optimization": 104, "high_learning_rate": 64, "mt5_xlsum_korean_adapted": 58, "mt5_xlsum_ultimate": 54,
    "mt5_xlsum_optimized_v2": 49, "kobart_baseline": 45, "eenzeenee_t5": 31,
}  # fmt: skip
"""Seconds of the seven rehearsals, side by side on two cores."""


@pytest.fixture(scope="module")
def seven():
    study = plan_batch(["seven"])
    return Batch(study, [rehearsal_of(each) for each in study.load()])


def test_the_longest_of_the_seven_start_first_and_nothing_else_changes(seven) -> None:
    named = [trial.name for trial in seven.trials()]
    order = list(seven.longest_first(named))
    assert sorted(order) == sorted(named)
    assert order != named
    assert [trial.name for trial in seven.trials()] == named == list(seven.study.experiments)
    assert order[:2] == list(MEASURED)[:2]
    assert order[-1] == list(MEASURED)[-1]


def test_on_two_cores_that_order_ends_within_a_twentieth_of_the_best_possible(seven) -> None:
    def ends(order) -> int:
        cores = [0, 0]
        for name in order:
            cores[cores.index(min(cores))] += MEASURED[name]
        return max(cores)

    named = [trial.name for trial in seven.trials()]
    assert ends(seven.longest_first(named)) <= 1.05 * sum(MEASURED.values()) / 2
    assert ends(named) > 1.15 * sum(MEASURED.values()) / 2


def test_equal_trials_keep_their_order_and_what_is_settled_is_not_started(seven) -> None:
    study = plan_batch(["kobart_baseline"], seeds=3)
    batch = Batch(study, [rehearsal_of(each) for each in study.load()])
    named = [trial.name for trial in batch.trials()]
    assert list(batch.longest_first(named)) == named
    assert list(batch.longest_first(named[1:])) == named[1:]


def test_work_grows_with_passes_and_with_what_a_pass_computes(seven) -> None:
    experiment = seven.experiments[0].with_({"training.max_steps": None})
    thrice = experiment.with_({"training.epochs": 3 * experiment.training.epochs})
    assert training_work(thrice) == 3 * training_work(experiment)
    # The same rows in larger batches: fewer passes, each of which costs something.
    assert training_work(experiment.with_({"training.batch_size": 12})) < training_work(experiment)
