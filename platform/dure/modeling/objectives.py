"""Losses that training minimises, normalised so that accumulation and workers do not change them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dure.modeling.output_layer import Projected, at, each_token, sum_over_tokens

IGNORED = -100
"""The label of padding."""


class Objective(ABC):
    """A loss divided by the items of the whole optimiser step, so that 2 passes of 4 rows equal 1 pass of 8.

    What an item is, and how much it weighs, is the objective's own: the trainer adds :meth:`count` of all
    micro-batches and workers, and hands the sum to each call. ``labels`` are what the family's batches give as
    targets (``Batches.targets``): a tensor, or whatever its objective knows to take.
    """

    takes_projected: ClassVar[bool] = False
    """Whether logits may come as ``dure.modeling.output_layer.Projected``, so that they never exist all at once."""

    def __call__(
        self, outputs: Any, labels: Any, num_items_in_batch: torch.Tensor | float | None = None
    ) -> torch.Tensor:
        """Return the loss of a micro-batch as its part of the step's loss, a scalar.

        ``num_items_in_batch`` is of the optimiser step; of ``labels`` when not given.
        """
        items = self.items(labels, num_items_in_batch)
        return self.total(outputs["logits"].float(), labels) / items

    def mean_disagreement(
        self,
        first: Any,
        second: Any,
        labels: Any,
        num_items_in_batch: torch.Tensor | float | None = None,
    ) -> torch.Tensor:
        """Return how far two outputs for the same rows lie apart, a scalar: a mean over the items of the loss."""
        items = self.items(labels, num_items_in_batch)
        apart = self.disagreement(first["logits"].float(), second["logits"].float(), labels)
        return self.weighed(apart / items)

    def items(self, labels: Any, in_step: torch.Tensor | float | None) -> torch.Tensor | float:
        """Return what a micro-batch is divided by: the items of its step, or its own when these are not known."""
        return self.count(labels) if in_step is None else in_step

    def weighed(self, means: torch.Tensor) -> torch.Tensor:
        """Return the whole of the means of all tasks, a scalar; here there is one task."""
        return means

    @abstractmethod
    def count(self, labels: Any) -> torch.Tensor:
        """Return the items of a micro-batch: what :meth:`total` of these labels is to be divided by.

        A scalar, or the items of every task, shape (tasks,), where each has a mean of its own.
        """

    @abstractmethod
    def total(self, logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return the summed loss of a micro-batch, a scalar."""

    @abstractmethod
    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return the summed disagreement of two logits for the same rows, in the shape of :meth:`total`.

        An item weighs in it what it weighs in the loss, so that both are divided by :meth:`count`. Measured by
        :func:`of_classes` and its kin.
        """

    @abstractmethod
    def row_losses(self, logits: torch.Tensor, labels: Any) -> torch.Tensor:
        """Return the plain loss of every row, without smoothing and weights, apart from its number of items.

        So the mean over a table can be taken exactly later, and compares with that of any other objective.

        Returns:
            Shape (rows, 2): summed loss, and number of items.
        """

    def take_sums(self) -> torch.Tensor | None:
        """Return the plain losses of the training rows since the last call, summed as :meth:`mean_losses` takes them.

        None where the training loss says all, as it does with one task.
        """
        return None

    def put_sums(self, sums: torch.Tensor) -> None:  # noqa: B027 - whose take_sums gives nothing gets nothing
        """Take back what :meth:`take_sums` gave, here or in the session before."""

    def mean_losses(self, sums: torch.Tensor) -> dict[str, float]:
        """Return the losses of a table by name, from its :meth:`row_losses` summed over all rows.

        ``loss`` is the whole; more are those of tasks, such as ``loss_emotion``.
        """
        total, items = sums.tolist()
        return {"loss": total / items}

    def shares(self, row_losses: torch.Tensor) -> list[float]:
        """Return what each row adds to the loss of a table, which is the mean of them, from its :meth:`row_losses`.

        A loss per item, such as a token, weighs each row by its items; several tasks have items of their own.
        """
        losses, items = row_losses.double().chunk(2, dim=1)
        in_all = items.sum(dim=0)
        return [self.mean_losses(torch.cat([row * len(losses), in_all]))["loss"] for row in losses]


def of_classes(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return how far two distributions over classes lie apart; both sides get gradients.

    It is the symmetric Kullback-Leibler divergence of R-Drop (Liang et al. 2021, equation 2),
    (KL(p || q) + KL(q || p)) / 2, which is sum_i (p_i - q_i) (log p_i - log q_i) / 2. Logits are of shape (…, classes), and
    the result of shape (…).
    """
    p, q = first.log_softmax(dim=-1), second.log_softmax(dim=-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=-1) / 2


def of_coins(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the same of two probabilities of yes, element by element; the arguments are their logits."""
    # log p - log q less log (1 - p) - log (1 - q) is the difference of the logits.
    return (first.sigmoid() - second.sigmoid()) * (first - second) / 2


class TokenCrossEntropy(Objective):
    """Cross entropy over target tokens: logits of shape (rows, length, vocabulary), labels (rows, length).

    ``label_smoothing`` is the part of every target that is spread over the whole vocabulary. Padding is not computed
    where the logits come projected.
    """

    takes_projected = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the number of real tokens, at least 1."""
        return (labels != IGNORED).sum().clamp(min=1)

    def total(self, logits: torch.Tensor | Projected, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy summed over real tokens."""
        if isinstance(logits, Projected):
            is_real = labels != IGNORED
            return sum_over_tokens(self._summed, [at(logits, is_real)], labels[is_real])
        return self._summed(logits, labels)

    def _summed(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            logits.view(-1, logits.shape[-1]),
            labels.reshape(-1),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    def disagreement(
        self, first: torch.Tensor | Projected, second: torch.Tensor | Projected, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the divergence of the distributions over the vocabulary, summed over real tokens."""
        is_real = labels != IGNORED
        if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
            return of_classes(first[is_real], second[is_real]).sum()
        return sum_over_tokens(
            lambda one, other, _: of_classes(one, other).sum(),
            [at(each, is_real) for each in (first, second) if isinstance(each, Projected)],
            labels[is_real],
        )

    def row_losses(self, logits: torch.Tensor | Projected, labels: torch.Tensor) -> torch.Tensor:
        """Return for every row the summed plain cross entropy, and the number of real tokens."""
        is_real = labels != IGNORED
        plain = partial(functional.cross_entropy, reduction="none")
        if isinstance(logits, Projected):
            losses = each_token(plain, at(logits, is_real), labels[is_real])
        else:
            losses = plain(logits.float()[is_real], labels[is_real])
        whole = losses.new_zeros(labels.shape)
        whole[is_real] = losses
        return torch.stack([whole.sum(dim=1), is_real.sum(dim=1).float()], dim=1)


class _Weighted(Objective):
    """Cross entropy with smoothed targets, to which classes may have weights."""

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: NDArray[np.float64] | None = None
    ) -> None:
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else torch.tensor(class_weights).float()


class ClassCrossEntropy(_Weighted):
    """Cross entropy over one class per row: logits of shape (rows, classes), labels (rows,).

    With smoothing e, weights w and k classes a row of class y costs
    ``-(1 - e) * w_y * log p_y - e / k * sum_c w_c * log p_c``, and the mean is over the sum of the w_y: just as
    ``torch.nn.CrossEntropyLoss(weight=w, label_smoothing=e)`` has it.

    Args:
        label_smoothing: Part of every target that is spread over all classes (Szegedy et al. 2016, section 7).
        class_weights: Shape (classes,); all are 1 when not given.
    """

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the weights of the rows' classes."""
        return self._row_weights(labels).sum()

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the weighted cross entropy summed over rows."""
        return functional.cross_entropy(
            logits,
            labels,
            weight=None if self.class_weights is None else self.class_weights.to(logits.device),
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )

    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the divergence of the distributions over classes, weighted and summed over rows."""
        return (self._row_weights(labels) * of_classes(first, second)).sum()

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the plain cross entropy of every row, and 1."""
        losses = functional.cross_entropy(logits.float(), labels, reduction="none")
        return torch.stack([losses, torch.ones_like(losses)], dim=1)

    def _row_weights(self, labels: torch.Tensor) -> torch.Tensor:
        if self.class_weights is None:
            return torch.ones(len(labels), device=labels.device)
        return self.class_weights.to(labels.device)[labels]


class LabelCrossEntropy(_Weighted):
    """Binary cross entropy over many labels per row: logits and labels (0 or 1) of shape (rows, labels).

    Every label is a question with two classes, treated as :class:`ClassCrossEntropy` treats its one question: a
    row that has label l weighs v_l in it and one that lacks it u_l, smoothing spreads e over yes and no alike,
    and the mean is over the sum of these weights, which is rows times labels when all are 1.

    Args:
        label_smoothing: Part of every target that is spread over yes and no.
        class_weights: Shape (2, labels), the weights u of no and v of yes; all are 1 when not given.
    """

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the weights of all answers."""
        return self._answer_weights(labels).sum()

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the weighted binary cross entropy summed over rows and labels."""
        # -log p(yes) and -log p(no)
        if_yes, if_no = functional.softplus(-logits), functional.softplus(logits)
        if self.class_weights is not None:
            no, yes = self.class_weights.to(logits.device)
            if_yes, if_no = if_yes * yes, if_no * no
        smooth = self.label_smoothing
        targets = labels.to(logits.dtype) * (1 - smooth) + smooth / 2
        return (targets * if_yes + (1 - targets) * if_no).sum()

    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the divergence of the probabilities of yes, weighted and summed over rows and labels."""
        return (self._answer_weights(labels) * of_coins(first, second)).sum()

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return for every row the plain binary cross entropy summed over labels, and their number."""
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), labels.float(), reduction="none"
        ).sum(dim=1)
        return torch.stack([losses, torch.full_like(losses, labels.shape[1])], dim=1)

    def _answer_weights(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the weight of every answer, in the shape of ``labels``."""
        if self.class_weights is None:
            return torch.ones(labels.shape, device=labels.device)
        no, yes = self.class_weights.to(labels.device)
        return torch.where(labels > 0.5, yes, no)


class SquaredError(Objective):
    """Squared error of one number per row: logits of shape (rows, 1), labels (rows,), in the units of the table."""

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the number of rows."""
        return torch.tensor(float(len(labels)))

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the squared errors summed over rows."""
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="sum")

    def disagreement(self, first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the squared differences of two predictions, summed over rows."""
        return functional.mse_loss(first, second, reduction="sum")

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the squared error of every row, and 1."""
        losses = functional.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="none")
        return torch.stack([losses, torch.ones_like(losses)], dim=1)


def balanced_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the balanced weight of every class, n / (k * n_c).

    n is the number of rows, n_c that of class c, and k the number of classes that have rows. So all classes weigh
    alike in a pass over the rows, and a row weighs 1 on average. A class without rows weighs nothing.

    Counts are along the first axis; each further place is a question of its own. Weights have their shape.
    """
    num_classes = (counts > 0).sum(axis=0)
    weights = counts.sum(axis=0) / np.maximum(num_classes * counts, 1)
    return np.where(counts > 0, weights, 0.0)
