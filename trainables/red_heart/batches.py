"""Batches of Red Heart: padded texts with the numbers of all tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dure.data.collating import Batch, PaddedRows


class TargetRows(PaddedRows):
    """Padded rows whose labels are the values of all tasks."""

    def labels(self, values: Sequence[Sequence[float]]) -> Batch:
        """Return labels of shape (rows, values of all tasks); NaN where one is missing."""
        return {"labels": torch.tensor(values, dtype=torch.float32)}
