import itertools

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.trainer_pt_utils import LengthGroupedSampler as TransformersSampler

from dure.data.batching import LengthGroupedSampler, Targets, length_order

lengths_of_rows = st.lists(st.integers(0, 600), max_size=200)


def dialogue_lengths(num_rows: int) -> np.ndarray:
    """Lengths like those of DialogSum: median 150, 1 % below 52 and 1 % at the limit of 512."""
    drawn = np.random.default_rng(3).lognormal(np.log(150), 0.5, num_rows)
    return drawn.astype(np.int64).clip(20, 512)


def padding_fraction(lengths, order, batch_size):
    """Return which part of all computed positions is padding, with each batch padded to its longest row."""
    in_order = np.asarray(lengths, dtype=np.int64)[np.asarray(order, dtype=np.int64)]
    batches = (in_order[start : start + batch_size] for start in range(0, len(in_order), batch_size))
    computed = sum(int(batch.max()) * len(batch) for batch in batches)
    return 1.0 - int(in_order.sum()) / computed if computed else 0.0


def steps(order, group_size):
    return [order[start : start + group_size] for start in range(0, len(order), group_size)]


@settings(max_examples=150, deadline=None)
@given(
    lengths=lengths_of_rows, group=st.integers(1, 70), seed=st.integers(0, 99), epoch=st.integers(0, 5),
    cost=st.none() | st.floats(0, 20),
)  # fmt: skip
def test_every_row_comes_exactly_once(lengths, group, seed, epoch, cost):
    targets = None if cost is None else Targets([length % 37 for length in lengths], cost)
    sampler = LengthGroupedSampler(lengths, group, seed, targets)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) == list(range(len(sampler)))
    assert all(type(row) is int for row in order)


@settings(max_examples=100, deadline=None)
@given(lengths=lengths_of_rows.filter(len), group=st.integers(1, 70), epoch=st.integers(0, 5))
def test_each_step_goes_from_long_to_short_and_epoch_0_begins_with_the_longest_row(lengths, group, epoch):
    sampler = LengthGroupedSampler(lengths, group, seed=1)
    sampler.set_epoch(epoch)
    order = list(sampler)
    for step in steps(order, group):
        assert [lengths[row] for row in step] == sorted((lengths[row] for row in step), reverse=True)
    if epoch == 0 and len(lengths) >= group:
        assert lengths[order[0]] == max(lengths)


def test_the_order_follows_from_seed_and_epoch_alone():
    lengths = dialogue_lengths(500)

    def order(seed, epoch):
        sampler = LengthGroupedSampler(lengths, 24, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed, epoch in itertools.product(range(3), range(3))]
    assert orders == [order(seed, epoch) for seed, epoch in itertools.product(range(3), range(3))]
    assert len({tuple(each) for each in orders}) == 9


def consumed(order, workers, micro_batch, accumulation):
    """The rows that each optimiser step consumes, as accelerate deals batches to workers."""
    batches = torch.utils.data.BatchSampler(order, micro_batch, drop_last=False)
    shards = [list(BatchSamplerShard(batches, workers, worker)) for worker in range(workers)]
    num_steps = -(-len(shards[0]) // accumulation)
    return [
        [
            row
            for shard in shards
            for batch in shard[step * accumulation : (step + 1) * accumulation]
            for row in batch
        ]
        for step in range(num_steps)
    ]


@settings(max_examples=100, deadline=None)
@given(
    num_rows=st.integers(1, 150),
    workers=st.sampled_from([1, 2, 3, 4]),
    micro_batch=st.integers(1, 6),
    accumulation=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_a_step_sees_the_same_rows_however_the_effective_batch_is_split(
    num_rows, workers, micro_batch, accumulation, seed
):
    group = workers * micro_batch * accumulation
    order = list(LengthGroupedSampler(dialogue_lengths(num_rows), group, seed))
    whole = steps(order, group)
    split = consumed(order, workers, micro_batch, accumulation)
    assert len(split) == len(whole)
    num_full = num_rows // group
    for ours, theirs in zip(whole[:num_full], split[:num_full], strict=True):
        assert sorted(ours) == sorted(theirs)
    if num_full < len(whole):
        # accelerate fills the last, smaller step up with rows of the first, so that all workers have some.
        assert set(whole[-1]) <= set(split[-1])
        assert len(split[-1]) - len(whole[-1]) < workers * micro_batch


def test_accelerate_passes_the_epoch_on():
    sampler = LengthGroupedSampler(dialogue_lengths(64), 8, seed=5)
    loader = Accelerator(cpu=True).prepare(
        torch.utils.data.DataLoader(range(64), batch_size=4, sampler=sampler)
    )
    loader.set_epoch(3)
    seen = [int(row) for batch in loader for row in batch]
    expected = LengthGroupedSampler(dialogue_lengths(64), 8, seed=5)
    expected.set_epoch(3)
    assert seen == list(expected)


def kept_pairs(first, second, group):
    """Part of the pairs of rows in one group that are in one group in the other order too."""
    places = np.empty((2, len(first)), dtype=np.int64)
    for place, order in enumerate((first, second)):
        places[place, order] = np.arange(len(order)) // group
    _, together = np.unique(places, axis=1, return_counts=True)
    return (together * (together - 1)).sum() / (len(first) * (group - 1))


@pytest.mark.parametrize("num_rows", [2_000, 12_460])
@pytest.mark.parametrize(("group", "micro_batch"), [(8, 8), (18, 6), (24, 8), (32, 4), (32, 8), (64, 8)])
def test_it_pads_less_than_transformers_and_mixes_the_rows_as_well(num_rows, group, micro_batch):
    lengths = dialogue_lengths(num_rows)
    generator = torch.Generator().manual_seed(0)
    theirs = [list(TransformersSampler(group, lengths=lengths.tolist(), generator=generator)) for _ in "12"]
    sampler = LengthGroupedSampler(lengths, group, seed=0)
    ours = [list(sampler)]
    sampler.set_epoch(1)
    ours.append(list(sampler))
    padding = padding_fraction(lengths, ours[1], micro_batch)
    assert padding < padding_fraction(lengths, theirs[1], micro_batch)
    assert padding < 0.03 < 0.3 < padding_fraction(lengths, list(range(num_rows)), micro_batch)
    assert kept_pairs(*ours, group) < 1.15 * kept_pairs(*theirs, group)


def dialogue_targets(lengths: np.ndarray) -> np.ndarray:
    """Lengths of summaries that grow with those of their dialogues, and scatter."""
    scatter = np.random.default_rng(4).lognormal(0, 0.6, len(lengths))
    return (6 + 0.16 * lengths * scatter).astype(np.int64).clip(4, 128)


@pytest.mark.parametrize("num_rows", [2_000, 12_460])
@pytest.mark.parametrize(("group", "micro_batch"), [(8, 8), (24, 8), (32, 8), (64, 8)])
def test_with_targets_it_pads_less_in_all_and_still_mixes_the_rows(num_rows, group, micro_batch):
    lengths = dialogue_lengths(num_rows)
    targets, cost = dialogue_targets(lengths), 1.5
    orders = {}
    for name, known in (("inputs", None), ("both", Targets(targets, cost))):
        sampler = LengthGroupedSampler(lengths, group, 0, known)
        orders[name] = [list(sampler)]
        sampler.set_epoch(1)
        orders[name].append(list(sampler))

    def computed(order):
        share = padding_fraction(lengths, order, micro_batch), padding_fraction(targets, order, micro_batch)
        return lengths.sum() / (1 - share[0]) + cost * targets.sum() / (1 - share[1])

    assert computed(orders["both"][1]) < 0.97 * computed(orders["inputs"][1])
    assert kept_pairs(*orders["both"], group) < max(1.25 * kept_pairs(*orders["inputs"], group), 0.12)


def test_targets_that_cost_nothing_change_no_order():
    lengths = dialogue_lengths(500)
    plain = list(LengthGroupedSampler(lengths, 16, 0))
    assert list(LengthGroupedSampler(lengths, 16, 0, Targets(dialogue_targets(lengths), 0.0))) == plain


def test_steps_come_in_no_order_of_length():
    lengths = dialogue_lengths(4_000)
    sampler = LengthGroupedSampler(lengths, 16, seed=0)
    sampler.set_epoch(1)
    means = [lengths[step].mean() for step in steps(list(sampler), 16)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


@given(lengths=lengths_of_rows)
def test_evaluation_goes_from_the_longest_row_down_and_keeps_ties_in_order(lengths):
    assert length_order(lengths) == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


def test_padding_is_the_part_of_positions_that_hold_no_token():
    assert padding_fraction([4, 2, 1], [0, 1, 2], 2) == pytest.approx(2 / 9)
    assert padding_fraction([4, 2, 1], [0, 2, 1], 2) == pytest.approx(3 / 10)
    assert padding_fraction([], [], 2) == 0.0
    assert padding_fraction([0], [0], 2) == 0.0


def test_a_group_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="group_size is 0"):
        LengthGroupedSampler([1], 0, seed=0)
