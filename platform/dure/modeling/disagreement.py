"""How far two outputs of one model for the same rows lie apart; both sides get gradients.

For distributions p and q it is the symmetric Kullback-Leibler divergence of R-Drop (Liang et al. 2021,
equation 2), (KL(p || q) + KL(q || p)) / 2, which is sum_i (p_i - q_i) (log p_i - log q_i) / 2.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def of_classes(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the divergence of distributions over classes.

    Logits are of shape (…, classes), and the result of shape (…).
    """
    p, q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1) / 2


def of_coins(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the divergence of two probabilities of yes, element by element; the arguments are their logits."""
    # log p - log q less log (1 - p) - log (1 - q) is the difference of the logits.
    return (first.sigmoid() - second.sigmoid()) * (first - second) / 2


def of_values(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the squared difference of values, element by element: for heads that say a number."""
    return functional.mse_loss(first, second, reduction="none")
