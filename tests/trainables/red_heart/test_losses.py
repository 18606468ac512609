"""The losses: their formulas, what is missing, and means over whole optimiser steps."""

from __future__ import annotations

import math

import pytest
import torch

from trainables.red_heart.losses import REGRET_BETA, RedHeartObjective
from trainables.red_heart.tasks import TASKS, task_slices

SIZES = {"emotion": 7, "bentham": 10, "regret": 1, "surd": 4}
ONES = dict.fromkeys(TASKS, 1.0)
NAN = math.nan


def rows(number: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and complete targets."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(number, 22, generator=generator)
    other = torch.randn(number, 22, generator=generator)
    parts = [other[:, :7].softmax(-1), other[:, 7:17].sigmoid(), other[:, 17:18], other[:, 18:].softmax(-1)]
    return logits, torch.cat(parts, dim=1)


def gappy(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets of which some are missing, unevenly among the rows."""
    logits, labels = rows(number)
    labels[0, :7] = NAN
    labels[: number // 2, 18:] = NAN
    labels[1, 7:15] = NAN
    labels[2:, 17] = NAN
    return logits, labels


def test_each_loss_is_that_of_its_formula() -> None:
    logits, labels = rows(1)
    x, t = ({task: part[0, place] for task, place in task_slices(SIZES).items()} for part in (logits, labels))
    smooth = 0.9 * t["emotion"] + 0.1 / 7
    p = x["bentham"].sigmoid()
    error = (x["regret"] - t["regret"]).abs().item()
    expected = [
        -(smooth * x["emotion"].log_softmax(-1)).sum().item(),
        (t["bentham"] * (t["bentham"] / p).log() + (1 - t["bentham"]) * ((1 - t["bentham"]) / (1 - p)).log())
        .sum()
        .item(),
        error - REGRET_BETA / 2 if error > REGRET_BETA else error**2 / (2 * REGRET_BETA),
        (t["surd"] * (t["surd"].log() - x["surd"].log_softmax(-1))).sum().item(),
    ]
    total = RedHeartObjective(SIZES, ONES, 0.1).total(logits, labels)
    assert total.tolist() == pytest.approx(expected, rel=1e-4)


def test_bounded_and_shared_losses_are_zero_when_the_target_is_met() -> None:
    _, labels = rows(4)
    met = torch.cat(
        [labels[:, :7].log(), labels[:, 7:17].logit(), labels[:, 17:18], labels[:, 18:].log()], dim=1
    )
    _, bentham, regret, surd = RedHeartObjective(SIZES, ONES).total(met, labels).tolist()
    assert (bentham, regret, surd) == pytest.approx((0, 0, 0), abs=1e-4)


def test_accumulated_passes_give_the_loss_and_gradient_of_one_pass_however_targets_fall() -> None:
    logits, labels = gappy(8)
    objective = RedHeartObjective(SIZES, {**ONES, "regret": 3.0}, 0.1)
    for log_variances in (None, torch.tensor([0.3, -0.2, 0.0, 1.0])):
        whole = logits.clone().requires_grad_()
        loss = objective(outputs(whole, log_variances), labels)
        loss.backward()
        pieces = logits.clone().requires_grad_()
        items = torch.stack([objective.count(part) for part in labels.split(2)]).sum(dim=0)
        parts = [
            objective(outputs(part, log_variances), target, items)
            for part, target in zip(pieces.split(2), labels.split(2), strict=True)
        ]
        sum(parts).backward()
        assert sum(parts).item() == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(pieces.grad, whole.grad)


def outputs(logits: torch.Tensor, log_variances: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {"logits": logits} | ({} if log_variances is None else {"log_variances": log_variances})


def test_what_is_missing_has_no_loss_and_no_gradient() -> None:
    logits, labels = gappy(8)
    logits.requires_grad_()
    RedHeartObjective(SIZES, ONES, 0.1)({"logits": logits}, labels).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, ~labels.isnan())
    assert not logits.grad.isnan().any()


def test_a_step_without_any_target_costs_nothing() -> None:
    logits, labels = rows(2)
    loss = RedHeartObjective(SIZES, ONES, 0.1)(
        outputs(logits.requires_grad_(), torch.ones(4)), torch.full_like(labels, NAN)
    )
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_learned_weights_are_those_of_kendall_and_others() -> None:
    logits, labels = rows(3)
    objective = RedHeartObjective(SIZES, ONES)
    plain = objective.total(logits, labels) / objective.count(labels)
    s = torch.tensor([0.5, -1.0, 0.0, 2.0], requires_grad=True)
    loss = objective(outputs(logits, s), labels)
    assert loss.item() == pytest.approx(((-s).exp() * plain + s / 2).sum().item(), rel=1e-5)
    loss.backward()
    torch.testing.assert_close(s.grad, 0.5 - (-s).exp().detach() * plain)


def test_losses_of_a_table_are_plain_means_by_task_and_their_weighted_sum() -> None:
    logits, labels = gappy(8)
    smoothed = RedHeartObjective(SIZES, {**ONES, "surd": 2.0}, 0.1)
    plain = RedHeartObjective(SIZES, ONES)
    means = (plain.total(logits, labels) / plain.count(labels)).tolist()
    losses = smoothed.mean_losses(smoothed.row_losses(logits, labels).sum(dim=0))
    expected = {f"loss_{task}": mean for task, mean in zip(TASKS, means, strict=True)}
    assert losses == pytest.approx({"loss": sum(means) + means[3], **expected}, rel=1e-5)


def test_training_losses_of_the_tasks_are_plain_means_over_all_calls_since_they_were_taken() -> None:
    logits, labels = gappy(8)
    objective = RedHeartObjective(SIZES, {**ONES, "surd": 2.0}, 0.1)
    for part, target in zip(logits.split(3), labels.split(3), strict=True):
        objective(outputs(part, torch.ones(4)), target)
    sums = objective.take_sums()
    assert sums is not None
    torch.testing.assert_close(sums, objective.row_losses(logits, labels).sum(dim=0))
    assert objective.take_sums() is None


def test_two_outputs_disagree_by_task_over_its_real_targets_only() -> None:
    logits, labels = gappy(8)
    other = rows(8, seed=5)[0]
    objective = RedHeartObjective(SIZES, {**ONES, "regret": 3.0})
    apart = objective.disagreement(logits, other, labels)
    p, q = (each[1:, :7].log_softmax(-1) for each in (logits, other))  # row 0 lacks its emotion
    assert apart[0].item() == pytest.approx(((p.exp() - q.exp()) * (p - q)).sum().item() / 2, rel=1e-5)
    assert apart[2].item() == pytest.approx(((logits[:2, 17] - other[:2, 17]) ** 2).sum().item(), rel=1e-5)
    mean = objective.mean_disagreement({"logits": logits}, {"logits": other}, labels)
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
    assert mean.item() == pytest.approx((weights * apart / objective.count(labels)).sum().item(), rel=1e-5)
    assert objective.mean_disagreement({"logits": logits}, {"logits": logits}, labels).item() == 0


def test_a_task_without_targets_has_no_validation_loss() -> None:
    logits, labels = rows(3)
    labels[:, 17] = NAN
    objective = RedHeartObjective(SIZES, ONES)
    losses = objective.mean_losses(objective.row_losses(logits, labels).sum(dim=0))
    assert set(losses) == {"loss", "loss_emotion", "loss_bentham", "loss_surd"}
