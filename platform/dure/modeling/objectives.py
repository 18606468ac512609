"""Losses that training minimises, normalised so that accumulation and workers do not change them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def token_cross_entropy(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross entropy over target tokens, divided by the number of real tokens of the whole optimiser step.

    Dividing by the step's tokens and not by the micro-batch's makes 2 passes of 4 rows equal 1 pass of 8,
    however unevenly the tokens fall.

    Args:
        outputs: Model output with ``logits`` of shape (batch, length, vocabulary).
        labels: Target ids of shape (batch, length); -100 is ignored.
        num_items_in_batch: Real target tokens of the optimiser step, over all passes and workers; those of
            ``labels`` when not given.

    Returns:
        A scalar.
    """
    logits = outputs["logits"]
    total = functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="sum"
    )
    if num_items_in_batch is None:
        num_items_in_batch = (labels != -100).sum().clamp(min=1)
    return total / num_items_in_batch


def row_cross_entropy(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross entropy over the classes of rows, divided by the rows of the whole optimiser step.

    Args:
        outputs: Model output with ``logits`` of shape (batch, classes).
        labels: Class ids of shape (batch,).
        num_items_in_batch: Rows of the optimiser step, over all passes and workers; those of ``labels`` when
            not given.

    Returns:
        A scalar.
    """
    total = functional.cross_entropy(outputs["logits"].float(), labels, reduction="sum")
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def row_token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every row, apart from its number of tokens, so that means can be taken exactly later.

    Args:
        logits: Shape (batch, length, vocabulary).
        labels: Target ids of shape (batch, length); -100 is ignored.

    Returns:
        Shape (batch, 2): summed cross entropy, and number of real tokens.
    """
    losses = functional.cross_entropy(
        logits.float().view(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="none"
    )
    return torch.stack([losses.view_as(labels).sum(dim=1), (labels != -100).sum(dim=1).float()], dim=1)


def row_class_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of every row over its classes, in the form of :func:`row_token_losses`.

    Args:
        logits: Shape (batch, classes).
        labels: Class ids of shape (batch,).

    Returns:
        Shape (batch, 2): cross entropy, and 1.
    """
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    return torch.stack([losses, torch.ones_like(losses)], dim=1)
