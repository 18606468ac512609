"""The rows of an epoch among workers: each once, and in passes of which all workers have equally many."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from dure.training.shares import EvenShares, stands_in


@given(
    num_rows=st.integers(1, 60),
    rows_at_once=st.integers(1, 6),
    workers=st.integers(2, 5),
    passes=st.integers(1, 3),
)
def test_every_row_is_learned_once_and_by_workers_that_have_equally_much(
    num_rows, rows_at_once, workers, passes
):
    sampler = BatchSampler(range(num_rows), rows_at_once, drop_last=False)
    shards = [EvenShares(sampler, workers, rank) for rank in range(workers)]
    found = [[*shard] for shard in shards]
    assert {len(each) for each in found} == {len(shards[0])}
    of_pass = rows_at_once * workers
    of_step = of_pass * passes
    arguments = [
        SimpleNamespace(
            per_device_train_batch_size=rows_at_once,
            world_size=workers,
            gradient_accumulation_steps=passes,
            process_index=rank,
        )
        for rank in range(workers)
    ]
    steps = -(-num_rows // of_step)
    # Whoever stands in does so with a single row, in the last step of every epoch alone.
    idle = [stands_in(each, num_rows, 2 * steps - 1) for each in arguments]
    assert not any(stands_in(each, num_rows, step) for each in arguments for step in range(steps - 1))
    assert all(len(each[-1]) == 1 for each, stands in zip(found, idle, strict=True) if stands)
    counted = [each[:-1] if stands else each for each, stands in zip(found, idle, strict=True)]
    assert sorted(chain(*chain(*counted))) == list(range(num_rows))
    last = [len(each[-1]) * (not stands) for each, stands in zip(found, idle, strict=True)]
    assert max(last) - min(last) <= 1
    # A step has the rows that one worker would have in it.
    for step in range(steps):
        rows = chain(*(chain(*each[step * passes : (step + 1) * passes]) for each in counted))
        assert sorted(rows) == list(range(step * of_step, min((step + 1) * of_step, num_rows)))
