"""R-Drop (Liang et al. 2021): two passes with different dropout over every row, and the price of their disagreement.

Both passes are one forward pass over a batch that holds every row twice, as the authors have it. Two passes
before one backward pass keep the same activations, so they would save no memory; but they read the weights
twice, are gathered twice from workers that share them out, and a model wrapped for several workers must not
be called twice before its backward pass, since the second call writes to buffers that the first one saved.
A run with R-Drop therefore needs the memory of twice its ``training.batch_size``: half of it with twice the
``gradient_accumulation_steps`` computes the same in the memory of before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dure.modeling.objectives import Objective


def r_drop_loss(
    objective: Objective,
    weight: float,
    outputs: Mapping[str, Any],
    targets: Any,
    num_items_in_batch: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """Return the mean of the two passes' losses, plus ``weight`` times their mean disagreement, a scalar.

    The authors add the losses where this takes their mean, which keeps the loss comparable with that of one pass; so
    their loss is twice this one, and their alpha is 2 * ``weight``. ``outputs`` are of a batch that holds every row
    twice (``Batches.twice``): ``logits`` of all rows, and then of all rows again. Targets and items count each row
    once.
    """
    halves = outputs["logits"].chunk(2)
    first, second = ({**outputs, "logits": logits} for logits in halves)
    losses = [objective(each, targets, num_items_in_batch) for each in (first, second)]
    apart = objective.mean_disagreement(first, second, targets, num_items_in_batch)
    return (losses[0] + losses[1]) / 2 + weight * apart
