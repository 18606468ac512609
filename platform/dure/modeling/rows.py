"""Training the rows of new tokens while the rest of the embedding stays frozen.

peft has ``trainable_token_indices`` for this, and three reasons stand against it here: it copies the whole
embedding matrix in every forward pass (mT5 has 250,112 rows); it refuses an embedding or output layer that is
a LoRA target too; and it takes T5 and mT5 for tied whatever their weights are. So the rows get an added
correction, applied wherever the matrix is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from dure.modeling.tokens import embedding_matrices

ADAPTER = "default"
"""Name of the one adapter; peft's own default, which Trainer expects."""


class NewRows(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # peft has no types
    """A trained correction to some rows of one embedding matrix.

    It is a tuner layer of peft, though one without a base layer: so peft saves, loads, freezes and disables it
    with the adapters.

    The scale of a row is taken from the matrix.
    """

    adapter_layer_names = ("lora_rows",)
    row_ids: torch.Tensor

    def __init__(self, row_ids: Sequence[int], matrix: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("row_ids", torch.tensor(sorted(row_ids), device=matrix.device), persistent=False)
        start = torch.zeros(len(row_ids), matrix.shape[1], device=matrix.device)
        self.lora_rows = nn.ParameterDict({ADAPTER: nn.Parameter(start)})
        # A step of Adam is about the learning rate, whatever the parameter's size. Rows as large as T5's
        # (several units in every component) would hardly move in a whole run.
        size = 0.0 if matrix.is_meta else float(matrix.detach().float().square().mean().sqrt())
        self.scale = max(1.0, size)

    @property
    def weight(self) -> nn.Parameter:
        """The trained parameter, which peft asks a layer for its device and dtype."""
        rows: nn.Parameter = self.lora_rows[ADAPTER]
        return rows

    @property
    def correction(self) -> torch.Tensor:
        """What is added to the rows: shape (rows, width), in fp32."""
        return self.weight * self.scale

    def attach(self, matrix: nn.Parameter, model: nn.Module) -> None:
        """Apply the correction in every layer of ``model`` that reads ``matrix``."""
        for layer in model.modules():
            if isinstance(layer, nn.Embedding) and layer.weight is matrix:
                layer.register_forward_hook(self._correct_embedding)
            elif isinstance(layer, nn.Linear) and layer.weight is matrix:
                layer.register_forward_hook(self._correct_logits)

    def _correct_embedding(
        self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        if self.disable_adapters:
            return output
        ids = inputs[0]
        place = torch.searchsorted(self.row_ids, ids).clamp_(max=len(self.row_ids) - 1)
        is_new = (self.row_ids[place] == ids).unsqueeze(-1)
        correction = nn.functional.embedding(place, self.correction) * is_new
        scale = getattr(layer, "embed_scale", 1.0)
        return output + (correction * scale).to(output.dtype)

    def _correct_logits(
        self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        if self.disable_adapters:
            return output
        rows = self.correction
        correction = nn.functional.linear(inputs[0].to(rows.dtype), rows).to(output.dtype)
        # In place: logits over a whole vocabulary are the largest tensor of a step.
        return output.index_add_(-1, self.row_ids, correction)


def train_rows(model: PreTrainedModel, row_ids: Sequence[int]) -> None:
    """Let the given rows be trained: of the input matrix, and of the output matrix when it is another one."""
    if not row_ids:
        return
    for name, matrix in zip(("new_rows", "new_output_rows"), embedding_matrices(model), strict=False):
        rows = NewRows(row_ids, matrix)
        rows.attach(matrix, model)
        model.add_module(name, rows)


def rows_by_matrix(model: PreTrainedModel) -> dict[int, NewRows]:
    """Return the trained rows of ``model`` by the ``id`` of the matrix that they correct."""
    found = [getattr(model, name, None) for name in ("new_rows", "new_output_rows")]
    return {
        id(matrix): rows
        for matrix, rows in zip(embedding_matrices(model), found, strict=False)
        if isinstance(rows, NewRows)
    }
