"""The losses of the four tasks, each with its mean over its own real targets, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from dure.modeling.objectives import Objective, of_classes, of_coins
from trainables.red_heart.tasks import TASKS, task_slices

REGRET_BETA = 0.1
"""Errors of regret below this count by their square, larger ones by their size (Huber 1964)."""


class RedHeartObjective(Objective):
    """The weighted sum of four means: each task's loss over its real targets of the whole optimiser step.

    * emotion: cross entropy against the shares of the classes, -sum_c q_c log p_c, with smoothing e
      q_c = (1 - e) t_c + e / k (Szegedy et al. 2016, section 7); an item is a row.
    * bentham: the divergence of two coins, t log(t / p) + (1 - t) log((1 - t) / (1 - p)): binary cross entropy less
      the target's own entropy. Unlike a distance after the sigmoid its gradient p - t does not vanish where the
      sigmoid is flat, and unlike cross entropy itself it is 0 when p = t. An item is a value.
    * regret: smooth L1, e^2 / (2 beta) for an error e below beta and e - beta / 2 above; an item is a row.
    * surd: the divergence sum_i t_i log(t_i / p_i) of shares that sum to 1, both of them; an item is a row.

    A target that is missing (NaN) has no loss, and is no item: a task's mean is over what is said. A step in which a
    task has no target teaches the others only.

    With the log variances s that a model learns, task i weighs exp(-s_i) and costs s_i / 2 more (Kendall, Gal and
    Cipolla 2018, section 3: s = log sigma^2; the half before a squared error is part of the losses here). Fixed
    weights multiply both.
    """

    def __init__(
        self, sizes: Mapping[str, int], weights: Mapping[str, float], label_smoothing: float = 0.0
    ) -> None:
        self.slices = task_slices(sizes)
        self.weights = torch.tensor([weights[task] for task in TASKS])
        self.label_smoothing = label_smoothing
        self._sums: torch.Tensor | None = None

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | float | None = None
    ) -> torch.Tensor:
        """Return the loss of a micro-batch as its part of the step's loss, a scalar.

        Labels are of shape (rows, values of all tasks), NaN where one is missing; outputs may have ``log_variances``.
        """
        self._note(outputs["logits"], labels)
        items = self.items(labels, num_items_in_batch)
        means = self.total(outputs["logits"].float(), labels) / items
        log_variances = outputs.get("log_variances")
        if log_variances is not None:
            # Each micro-batch bears its share of the penalty, so that a step bears it once.
            share = self.count(labels) / items
            means = (-log_variances.float()).exp() * means + log_variances.float() / 2 * share
        return self.weighed(means)

    def items(self, labels: torch.Tensor, in_step: torch.Tensor | float | None) -> torch.Tensor:
        """Return the items of each task, shape (tasks,), at least 1: a task without any has no loss."""
        return torch.as_tensor(super().items(labels, in_step)).to(labels.device).clamp(min=1)

    def weighed(self, means: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the tasks' means."""
        return (self.weights.to(means.device) * means).sum()

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the real targets of each task, shape (tasks,)."""
        return _items(labels, self.slices).sum(dim=0)

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed loss of each task, with smoothing but without weights, shape (tasks,)."""
        return self._losses(logits, labels, self.label_smoothing).sum(dim=0)

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the plain losses of every row by task, and the items of them, shape (rows, 2 x tasks)."""
        return torch.cat([self._losses(logits.float(), labels, 0.0), _items(labels, self.slices)], dim=1)

    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the summed disagreement of each task over its real targets, shape (tasks,).

        Emotions and SURD parts are distributions, Bentham values coins, and regret is a number.
        """
        is_real = (~labels.isnan()).float()
        pairs = {task: (first[:, place], second[:, place]) for task, place in self.slices.items()}
        said = {task: is_real[:, place] for task, place in self.slices.items()}
        apart = {
            "emotion": of_classes(*pairs["emotion"])[:, None] * said["emotion"][:, :1],
            "bentham": of_coins(*pairs["bentham"]) * said["bentham"],
            "regret": functional.mse_loss(*pairs["regret"], reduction="none") * said["regret"],
            "surd": of_classes(*pairs["surd"])[:, None] * said["surd"][:, :1],
        }
        return torch.stack([apart[task].sum() for task in TASKS])

    @torch.no_grad()
    def _note(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        sums = self.row_losses(logits, labels).sum(dim=0)
        self._sums = sums if self._sums is None else self._sums + sums

    def take_sums(self) -> torch.Tensor | None:
        """Return the plain losses and items of all calls since the last time, shape (2 x tasks,)."""
        sums, self._sums = self._sums, None
        return sums

    def put_sums(self, sums: torch.Tensor) -> None:
        """Take back what :meth:`take_sums` gave."""
        self._sums = sums

    def mean_losses(self, sums: torch.Tensor) -> dict[str, float]:
        """Return ``loss_<task>`` of every task that has a target, and their weighted sum as ``loss``."""
        totals, items = sums[: len(TASKS)], sums[len(TASKS) :]
        means = {
            task: float(total / number)
            for task, total, number in zip(TASKS, totals, items, strict=True)
            if number
        }
        weights = dict(zip(TASKS, self.weights.tolist(), strict=True))
        if not means:
            return {}
        return {
            "loss": sum(weights[task] * mean for task, mean in means.items()),
            **{f"loss_{task}": mean for task, mean in means.items()},
        }

    def _losses(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return the losses of every row by task, shape (rows, tasks); 0 where a target is missing."""
        is_real = ~labels.isnan()
        # Before any arithmetic: the gradient of a NaN that is multiplied by 0 is NaN.
        targets = torch.where(is_real, labels, 0.0).float()
        said = {task: is_real[:, place].float() for task, place in self.slices.items()}
        x = {task: logits[:, place] for task, place in self.slices.items()}
        t = {task: targets[:, place] for task, place in self.slices.items()}
        emotion = t["emotion"] * (1 - smoothing) + smoothing / t["emotion"].shape[1]
        coin = torch.xlogy(t["bentham"], t["bentham"]) + torch.xlogy(1 - t["bentham"], 1 - t["bentham"])
        losses = {
            "emotion": -emotion * x["emotion"].log_softmax(dim=-1),
            "bentham": functional.binary_cross_entropy_with_logits(
                x["bentham"], t["bentham"], reduction="none"
            )
            + coin,
            "regret": functional.smooth_l1_loss(x["regret"], t["regret"], reduction="none", beta=REGRET_BETA),
            "surd": torch.xlogy(t["surd"], t["surd"]) - t["surd"] * x["surd"].log_softmax(dim=-1),
        }
        return torch.stack([(losses[task] * said[task]).sum(dim=1) for task in TASKS], dim=1)


def _items(labels: torch.Tensor, slices: Mapping[str, slice]) -> torch.Tensor:
    """Return the real targets of every row by task, shape (rows, tasks): whole rows, but single Bentham values."""
    is_real = (~labels.isnan()).float()
    counts = {task: is_real[:, place] for task, place in slices.items()}
    return torch.stack(
        [counts[task].sum(dim=1) if task == "bentham" else counts[task][:, 0] for task in TASKS], dim=1
    )
