"""The batch of a stage: small while the data is small, under one effective batch."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.config.loading import load_experiment
from dure.config.ratios import as_ratio
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.progressive.stage import batch_size_at, best_place, stage_experiment, stage_folders

shares = st.fractions(min_value=Fraction(1, 100), max_value=1, max_denominator=100)


@pytest.mark.parametrize(("ratio", "rows"), [("10%", 1), ("20%", 2), ("50%", 2), ("60%", 4), ("100%", 4)])
def test_a_batch_of_four_grows_as_the_users_own_did(ratio, rows):
    for accumulation in (1, 4, 16):
        assert batch_size_at(as_ratio(ratio), 4, 4 * accumulation) == rows


@pytest.mark.parametrize("name", ["transfer_bert", "transfer_distilbert", "kobert_emotion"])
def test_the_default_batches_of_the_shipped_experiments_are_those_of_the_old_system(name):
    training, most = load_experiment(name).training, ProgressiveStudy(experiment=name).max_batch_size
    for percent, rows in ((10, 1), (20, 2), (50, 2), (100, 4)):
        size = batch_size_at(
            Fraction(percent, 100), training.batch_size, training.effective_batch_size, most=most
        )
        assert size == rows
        assert training.effective_batch_size % size == 0


@given(
    ratios=st.lists(shares, min_size=2, max_size=5),
    workers=st.integers(1, 4),
    per_worker=st.integers(1, 24),
    accumulation=st.integers(1, 8),
    limit=st.none() | st.integers(1, 32),
)
def test_a_batch_divides_the_effective_one_grows_with_the_ratio_and_heeds_its_limit(
    ratios, workers, per_worker, accumulation, limit
):
    batch, effective = workers * per_worker, workers * per_worker * accumulation
    sizes = [
        batch_size_at(ratio, batch, effective, num_workers=workers, limit=limit) for ratio in sorted(ratios)
    ]
    assert sizes == sorted(sizes)
    for ratio, rows in zip(sorted(ratios), sizes, strict=True):
        assert effective % rows == 0
        assert rows % workers == 0
        assert workers <= rows <= batch
        assert limit is None or rows <= max(limit, workers)
        if ratio <= Fraction(1, 10):
            assert rows <= max(workers, batch // 4)
        if limit is None and ratio > Fraction(1, 2):
            assert rows == batch


def test_rows_that_workers_cannot_share_are_refused():
    with pytest.raises(UserError, match=r"training\.batch_size"):
        batch_size_at(Fraction(1), 4, 4, num_workers=3)


def test_a_stage_runs_the_experiment_on_its_part_and_sees_the_same_rows_at_a_step(tiny):
    study = ProgressiveStudy(name="grow", experiment="bert", epochs_per_stage=3)
    experiment = tiny("bert", "full", gradient_accumulation_steps=2)
    for number, ratio in ((1, Fraction(1, 10)), (10, Fraction(1))):
        stage = stage_experiment(
            experiment,
            study,
            number,
            ratio,
            batch_size_at(ratio, 4, experiment.training.effective_batch_size),
        )
        assert stage.training.effective_batch_size == experiment.training.effective_batch_size == 8
        assert stage.training.batch_size == {1: 1, 10: 4}[number]
        assert stage.training.eval_batch_size == 4
        assert stage.data.train_ratio == ratio
        assert (stage.training.epochs, stage.training.max_steps) == (3, None)
        assert stage.training.eval_every == "epoch"
        assert stage.training.evaluate_untrained == (number == 1)
        assert stage.name == f"{experiment.name}.stage_{number}_{ratio * 100}pct"


def test_the_folders_of_all_stages_are_those_of_the_schedule(tmp_path):
    folders = stage_folders(ProgressiveStudy(name="grow", experiment="bert"), tmp_path)
    assert [folder.path.name for folder in folders[:2]] == ["stage_1_10pct", "stage_2_20pct"]
    assert [folder.path.name for folder in folders[-2:]] == ["stage_9_90pct", "stage_10_100pct"]


def test_the_best_stage_is_by_the_metrics_direction_and_the_later_of_equals():
    accuracy, loss = Metric("eval_accuracy", "max", "share"), Metric("eval_loss", "min")
    assert best_place(accuracy, [0.5, 0.7, 0.7, 0.6, None]) == 2
    assert best_place(loss, [0.5, None, 0.2, 0.2, 0.6]) == 3
    assert best_place(loss, [None, None]) is None
    assert best_place(loss, []) is None
