"""The losses of pairs: DPO and SimPO, and what keeps a model writing the better answers."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn.functional import logsigmoid

from dure.modeling.objectives import IGNORED, Objective, of_coins

Method = Literal["dpo", "simpo"]


class PairLosses(Objective):
    """The logistic loss of rewards, -log sigmoid(reward of the better - reward of the other - margin), mean over pairs.

    With log p summed over an answer's tokens, its reward is beta * (log p - log p of the reference) in DPO (Rafailov et
    al. 2023, arXiv 2305.18290, equation 7), and beta / tokens * log p in SimPO (Meng et al. 2024, arXiv 2405.14734,
    equation 6). With smoothing e a pair counts with 1 - e as it is and with e turned around (Mitchell 2023, cDPO).
    In training ``sft_weight`` times -log p of the better answer / its tokens comes on top (Pang et al. 2024, arXiv
    2404.19733: RPO, whose alpha it is), and not in validation.

    Logits are losses of target tokens, shape (2n, tokens, 2), as :func:`trainables.causal.likelihood.score_targets` has
    them; labels are from :class:`Pairs`.
    """

    def __init__(
        self,
        method: Method,
        beta: float,
        margin: float = 0.0,
        label_smoothing: float = 0.0,
        sft_weight: float = 0.0,
    ) -> None:
        self.method, self.beta, self.margin = method, beta, margin
        self.label_smoothing, self.sft_weight = label_smoothing, sft_weight

    def count(self, labels: Any) -> torch.Tensor:
        """Return the number of pairs."""
        return torch.tensor(len(labels["ids"]) / 2)

    def total(self, logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return the loss summed over pairs."""
        ahead = self.ahead(logits, labels) - self.margin
        smooth = self.label_smoothing
        losses = -((1 - smooth) * logsigmoid(ahead) + smooth * logsigmoid(-ahead))
        if self.sft_weight:
            losses = losses - self.sft_weight * self._mean_log_p(logits, labels).chunk(2)[0]
        return losses.sum()

    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return the divergence of the probabilities of the better answer, summed over pairs."""
        return of_coins(self.ahead(first, labels), self.ahead(second, labels)).sum()

    def row_losses(self, logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return of every pair the loss, whether the better answer is ahead (half of it for a tie), by how much; and 1s."""
        ahead = self.ahead(logits.float(), labels)
        right = (ahead > 0).float() + (ahead == 0).float() / 2
        return torch.stack(
            [-logsigmoid(ahead - self.margin), right, ahead, *torch.ones(3, len(ahead)).to(ahead)], dim=1
        )

    def mean_losses(self, sums: torch.Tensor) -> dict[str, float]:
        """Return the means over pairs: the loss, the reward accuracy and the reward margin."""
        loss, right, ahead, pairs, *_ = sums.tolist()
        return {"loss": loss / pairs, "reward_accuracy": right / pairs, "reward_margin": ahead / pairs}

    def ahead(self, logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return by how much the better answer's reward is larger, shape (n,)."""
        is_simpo = self.method == "simpo"
        rewards = self._mean_log_p(logits, labels) if is_simpo else -logits[..., 0].sum(dim=1)
        better, other = rewards.chunk(2)
        ahead = better - other
        if self.method == "dpo":
            reference = labels["reference"]
            ahead = ahead - (reference[:, 0] - reference[:, 1])
        return self.beta * ahead

    @staticmethod
    def _mean_log_p(logits: torch.Tensor, labels: Any) -> torch.Tensor:
        return -logits[..., 0].sum(dim=1) / (labels["ids"] != IGNORED).sum(dim=1).clamp(min=1)
