"""Learning numbers by squared error."""

from __future__ import annotations

import torch
from torch.nn import functional

from dure.modeling.disagreement import of_values
from dure.modeling.objectives import Objective


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
        return of_values(first, second).sum()

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the squared error of every row, and 1."""
        losses = functional.mse_loss(logits.float().squeeze(-1), labels.float(), reduction="none")
        return torch.stack([losses, torch.ones_like(losses)], dim=1)
