"""R-Drop's loss and gradient are those of its formula, computed by another way."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import distributions
from torch.distributions import kl_divergence

from dure.modeling.objectives import (
    ClassCrossEntropy,
    LabelCrossEntropy,
    SquaredError,
    TokenCrossEntropy,
    balanced_weights,
)
from dure.modeling.r_drop import r_drop_loss

ALPHA = 0.7


def symmetric(p, q):
    return (kl_divergence(p, q) + kl_divergence(q, p)) / 2


def of_tokens():
    labels = torch.randint(0, 7, (4, 5))
    labels[0, 2:] = labels[3, 4:] = -100
    real = labels != -100
    objective = TokenCrossEntropy(0.1)

    def apart(first, second):
        kind = distributions.Categorical
        return symmetric(kind(logits=first[real]), kind(logits=second[real])).mean()

    return objective, labels, (4, 5, 7), apart


def of_weighted_classes():
    labels = torch.tensor([0, 0, 0, 1, 2, 0])
    weights = balanced_weights(numpy.bincount(labels, minlength=3))
    share = torch.tensor(weights).float()[labels]

    def apart(first, second):
        kind = distributions.Categorical
        return (share * symmetric(kind(logits=first), kind(logits=second))).sum() / share.sum()

    return ClassCrossEntropy(0.1, weights), labels, (6, 3), apart


def of_weighted_labels():
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    yes = labels.sum(dim=0)
    weights = balanced_weights(torch.stack([5 - yes, yes]).long().numpy())
    no, yes = torch.tensor(weights).float()
    share = torch.where(labels > 0, yes, no)

    def apart(first, second):
        kind = distributions.Bernoulli
        return (share * symmetric(kind(logits=first), kind(logits=second))).sum() / share.sum()

    return LabelCrossEntropy(0.0, weights), labels, (5, 2), apart


@pytest.mark.parametrize("case", [of_tokens, of_weighted_classes, of_weighted_labels])
def test_loss_and_gradient_are_those_of_the_formula(case) -> None:
    torch.manual_seed(0)
    objective, labels, shape, apart = case()
    logits = torch.randn(2 * shape[0], *shape[1:], requires_grad=True)
    loss = r_drop_loss(objective, ALPHA, {"logits": logits, "other": torch.ones(2 * shape[0])}, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    first, second = logits.chunk(2)
    expected = (
        objective({"logits": first}, labels) + objective({"logits": second}, labels)
    ) / 2 + ALPHA * apart(first, second)
    (wanted,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-5)
    plain = r_drop_loss(objective, 0.0, {"logits": logits}, labels)
    assert float((loss - plain).detach()) > 0.01
    assert not torch.allclose(torch.autograd.grad(plain, logits)[0], gradient, atol=1e-4)


def test_what_agrees_costs_nothing_more() -> None:
    objective, labels, shape, _ = of_tokens()
    once = torch.randn(shape)
    loss = r_drop_loss(objective, 5.0, {"logits": torch.cat([once, once])}, labels)
    torch.testing.assert_close(loss, objective({"logits": once}, labels))


def test_large_logits_stay_finite() -> None:
    objective, labels, shape, _ = of_weighted_labels()
    logits = (1e4 * torch.randn(2 * shape[0], *shape[1:])).requires_grad_()
    loss = r_drop_loss(objective, 1.0, {"logits": logits}, labels)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_values_differ_by_their_square() -> None:
    first, second = torch.tensor([[0.5], [1.0]]), torch.tensor([[0.25], [-1.0]])
    apart = SquaredError().disagreement(first, second, torch.zeros(2))
    torch.testing.assert_close(apart, torch.tensor(4.0625))
