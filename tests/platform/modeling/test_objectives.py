"""The losses equal PyTorch's own, gradients included, however a step is cut into micro-batches."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dure.modeling.objectives import (
    ClassCrossEntropy,
    LabelCrossEntropy,
    TokenCrossEntropy,
    balanced_weights,
)

SMOOTHING = [0.0, 0.1, 0.7]
CUTS = [(64,), (32, 32), (1, 50, 13)]


def loss_and_gradient(objective, logits, labels, cut):
    """What a trainer does: count the whole step, then add up its micro-batches."""
    logits = logits.detach().clone().requires_grad_()
    pieces = list(zip(logits.split(cut), labels.split(cut), strict=True))
    items = sum(objective.count(piece) for _, piece in pieces)
    loss = sum(objective({"logits": piece}, of, num_items_in_batch=items) for piece, of in pieces)
    loss.backward()
    return loss.detach(), logits.grad


def reference(module, logits, labels):
    logits = logits.detach().clone().requires_grad_()
    loss = module(logits, labels)
    loss.backward()
    return loss.detach(), logits.grad


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.fixture
def rows():
    """64 rows of five classes, sorted by class, so that micro-batches differ as much as they can."""
    torch.manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.45, 0.22, 0.18, 0.1, 0.05]), 64, replacement=True)
    return 3 * torch.randn(64, 5), labels.sort().values


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("weighted", [False, True])
def test_class_cross_entropy_is_pytorchs_in_one_pass_or_in_many(rows, smoothing, weighted, cut) -> None:
    logits, labels = rows
    weights = balanced_weights(numpy.bincount(labels, minlength=5)) if weighted else None
    module = nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights).float(), label_smoothing=smoothing
    )
    found = loss_and_gradient(ClassCrossEntropy(smoothing, weights), logits, labels, cut)
    assert_same(found, reference(module, logits, labels))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_token_cross_entropy_is_pytorchs_and_ignores_padding(smoothing, cut) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(64, 7, 11), torch.randint(0, 11, (64, 7))
    labels[torch.arange(7) >= torch.randint(1, 8, (64, 1)).sort(dim=0).values] = -100
    module = nn.CrossEntropyLoss(label_smoothing=smoothing)
    found = loss_and_gradient(TokenCrossEntropy(smoothing), logits, labels, cut)
    assert_same(found, reference(lambda out, of: module(out.view(-1, 11), of.view(-1)), logits, labels))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_label_is_a_question_with_two_classes_of_pytorchs_cross_entropy(smoothing, weighted, cut) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(64, 6), (torch.rand(64, 6) < torch.linspace(0.02, 0.9, 6)).float()
    yes = labels.sum(dim=0).numpy().astype("int64")
    weights = balanced_weights(numpy.stack([64 - yes, yes])) if weighted else None

    def by_pytorch(out, of):
        total = items = torch.tensor(0.0)
        for place in range(6):
            pair = torch.stack([torch.zeros(64), out[:, place]], dim=1)
            weight = torch.ones(2) if weights is None else torch.tensor(weights[:, place]).float()
            module = nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing, reduction="sum")
            total = total + module(pair, of[:, place].long())
            items = items + weight[of[:, place].long()].sum()
        return total / items

    found = loss_and_gradient(LabelCrossEntropy(smoothing, weights), logits, labels, cut)
    assert_same(found, reference(by_pytorch, logits, labels))
    if not weighted and smoothing == 0:
        assert_same(found, reference(nn.BCEWithLogitsLoss(), logits, labels))


def test_the_loss_of_validation_is_the_plain_one() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 3), torch.randint(0, 3, (8,))
    losses, items = ClassCrossEntropy(0.3, numpy.array([1.0, 5.0, 9.0])).row_losses(logits, labels).T
    torch.testing.assert_close(losses.sum() / items.sum(), nn.CrossEntropyLoss()(logits, labels))
    answers = torch.randint(0, 2, (8, 3)).float()
    losses, items = LabelCrossEntropy(0.3, numpy.ones((2, 3)) * 4).row_losses(logits, answers).T
    torch.testing.assert_close(losses.sum() / items.sum(), nn.BCEWithLogitsLoss()(logits, answers))
    tokens = torch.tensor([[1, 2, -100], [0, -100, -100]])
    losses, items = TokenCrossEntropy(0.3).row_losses(logits[:6].view(2, 3, 3), tokens).T
    assert items.tolist() == [2, 1]
    torch.testing.assert_close(losses.sum() / 3, nn.CrossEntropyLoss()(logits[:6], tokens.view(-1)))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50).filter(any))
def test_balanced_weights_let_every_class_weigh_alike_and_a_row_1_on_average(counts) -> None:
    counts = numpy.array(counts)
    weights = balanced_weights(counts)
    shares = (weights * counts)[counts > 0]
    numpy.testing.assert_allclose(shares, shares[0])
    numpy.testing.assert_allclose(shares.sum(), counts.sum())
    assert (weights[counts == 0] == 0).all()


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = numpy.repeat([0, 1, 2], [7, 2, 1])
    expected = compute_class_weight("balanced", classes=numpy.arange(3), y=labels)
    numpy.testing.assert_allclose(balanced_weights(numpy.bincount(labels)), expected)
