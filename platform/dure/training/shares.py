"""The training rows of each of several workers: all of them once an epoch, and none twice.

The passes of an epoch are dealt out to the workers in turn. Where the rows do not divide, accelerate fills the last pass up
with the first rows of the epoch, which would then be learned twice, and be most of a small last step. Here the last pass is
shared out evenly. A worker for which it has no row takes part with one that counts nothing, since all must.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelerate.data_loader import BatchSamplerShard
from transformers import TrainingArguments


class EvenShares(BatchSamplerShard):  # type: ignore[misc]
    """Gives one worker its batches of rows; all workers have equally many batches."""

    def __iter__(self) -> Iterator[list[int]]:
        """Give the rows of each batch."""
        dealt: list[list[int]] = []
        for batch in self.batch_sampler:
            dealt.append(batch)
            if len(dealt) == self.num_processes and len(batch) == self.batch_size:
                yield dealt[self.process_index]
                dealt = []
        rows = [row for batch in dealt for row in batch]
        if rows:
            each, more = divmod(len(rows), self.num_processes)
            begin = self.process_index * each + min(self.process_index, more)
            yield rows[begin : begin + each + (self.process_index < more)] or rows[:1]


def stands_in(args: TrainingArguments, num_rows: int, steps: int) -> bool:
    """Return whether the last pass of the step after so many has no row for this worker."""
    of_pass = args.per_device_train_batch_size * args.world_size
    in_epoch = math.ceil(num_rows / (of_pass * args.gradient_accumulation_steps))
    is_last = (steps + 1) % in_epoch == 0
    return bool(is_last and 0 < num_rows % of_pass <= args.process_index)
