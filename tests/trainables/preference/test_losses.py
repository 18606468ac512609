"""The losses of pairs against the formulas of the papers, computed apart from them, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dure.modeling.objectives import IGNORED
from trainables.preference.losses import PairLosses

PAIRS, TOKENS = 5, 7


@pytest.fixture
def drawn():
    """Losses of target tokens in double precision, targets of several lengths, and a reference."""
    torch.manual_seed(3)
    ids = torch.randint(0, 50, (2 * PAIRS, TOKENS))
    lengths = torch.tensor([7, 3, 5, 1, 6, 2, 7, 4, 3, 5])
    ids[torch.arange(TOKENS) >= lengths[:, None]] = IGNORED
    losses = torch.rand(2 * PAIRS, TOKENS, dtype=torch.float64) * (ids != IGNORED)
    logits = torch.stack([losses, torch.zeros_like(losses)], dim=-1).requires_grad_()
    reference = -4 * torch.rand(PAIRS, 2, dtype=torch.float64)
    return logits, {"ids": ids, "reference": reference}, lengths


def by_hand(
    method, logits, labels, lengths, *, beta, margin=0.0, smooth=0.0, sft_weight=0.0
) -> tuple[float, np.ndarray]:
    """The sum of the losses and its gradient by log p of every token, in plain numbers.

    DPO: -log sigmoid(beta * ((log p_w - log r_w) - (log p_l - log r_l))). SimPO: -log sigmoid(beta / |w| * log p_w -
    beta / |l| * log p_l - gamma). The gradient of -log sigmoid(x) is -(1 - sigmoid(x)). RPO adds -alpha / |w| * log p_w.
    """
    log_p = -logits[..., 0].detach().numpy()
    total, gradient = 0.0, np.zeros_like(log_p)
    for pair in range(PAIRS):
        sides = []
        for side, row in enumerate((pair, PAIRS + pair)):
            number = int(lengths[row])
            of_answer = sum(log_p[row, token] for token in range(number))
            if method == "dpo":
                sides.append((beta * (of_answer - float(labels["reference"][pair, side])), beta))
            else:
                sides.append((beta / number * of_answer, beta / number))
        x = sides[0][0] - sides[1][0] - margin
        sigmoid = 1 / (1 + math.exp(-x))
        total += -(1 - smooth) * math.log(sigmoid) - smooth * math.log(1 - sigmoid)
        slope = -(1 - smooth) * (1 - sigmoid) + smooth * sigmoid
        better = int(lengths[pair])
        total += -sft_weight * sum(log_p[pair, token] for token in range(better)) / better
        gradient[pair, :better] = slope * sides[0][1] - sft_weight / better
        gradient[PAIRS + pair, : int(lengths[PAIRS + pair])] = -slope * sides[1][1]
    return total, gradient


CASES = [
    ("dpo", {"beta": 0.1}),
    ("dpo", {"beta": 0.7, "smooth": 0.2}),
    ("dpo", {"beta": 0.3, "sft_weight": 0.5}),
    ("simpo", {"beta": 2.5}),
    ("simpo", {"beta": 2.0, "margin": 0.4, "smooth": 0.1, "sft_weight": 2.0}),
    ("simpo", {"beta": 2.0, "margin": 1.1}),
]


@pytest.mark.parametrize(("method", "settings"), CASES)
def test_loss_and_gradient_are_those_of_the_formula(method, settings, drawn) -> None:
    logits, labels, lengths = drawn
    names = ("beta", "margin", "smooth", "sft_weight")
    objective = PairLosses(method, *(settings.get(name, 0.0) for name in names))
    loss = objective.total(logits, labels)
    expected, gradient = by_hand(method, logits, labels, lengths, **settings)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-9)
    (found,) = torch.autograd.grad(loss, logits)
    is_real = (labels["ids"] != IGNORED).numpy()
    # Logits are -log p.
    np.testing.assert_allclose(-found[..., 0].numpy()[is_real], gradient[is_real], atol=1e-9)
    assert float(objective.count(labels)) == PAIRS


def test_the_loss_of_equal_models_is_the_logarithm_of_two(drawn) -> None:
    logits, labels, _ = drawn
    sums = -logits[..., 0].detach().sum(dim=1)
    labels["reference"] = torch.stack(sums.chunk(2), dim=1)
    objective = PairLosses("dpo", 0.1)
    means = objective.mean_losses(objective.row_losses(logits.detach(), labels).sum(dim=0))
    assert means["loss"] == pytest.approx(math.log(2), abs=1e-6)
    # Rewards are as large as each other up to rounding, and exact ties are half right.
    assert means["reward_margin"] == pytest.approx(0, abs=1e-6)
    tie = PairLosses("simpo", 1.0).row_losses(
        torch.ones(2, 3, 2), {"ids": torch.ones(2, 3, dtype=torch.int64)}
    )
    assert tie[0, 1] == 0.5


def test_what_is_validated_is_the_loss_of_pairs_alone(drawn) -> None:
    logits, labels, _ = drawn
    plain, with_answers = (
        PairLosses("dpo", 0.3, sft_weight=weight).row_losses(logits.detach(), labels) for weight in (0.0, 1.0)
    )
    assert torch.equal(plain, with_answers)


def test_accuracy_and_margin_are_counted_over_pairs(drawn) -> None:
    logits, labels, _ = drawn
    objective = PairLosses("dpo", 0.3)
    rows = objective.row_losses(logits.detach(), labels)
    ahead = objective.ahead(logits.detach(), labels)
    means = objective.mean_losses(rows.double().sum(dim=0))
    assert means["reward_accuracy"] == pytest.approx(float((ahead > 0).double().mean()))
    assert means["reward_margin"] == pytest.approx(float(ahead.mean()), abs=1e-6)
    assert means["loss"] == pytest.approx(float(objective.total(logits, labels).detach()) / PAIRS, abs=1e-6)
