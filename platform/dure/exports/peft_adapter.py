"""Adapters by themselves, as peft loads them onto the checkpoint that they were trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import CONFIG_NAME
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.exports.formats import Format, Trained
from dure.files import read_json, write_json
from dure.modeling.rows import rows_by_matrix
from dure.modeling.tokens import embedding_matrices

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model.{}."
_NEW_ROWS = ("new_rows", "new_output_rows")


class PeftAdapter(Format):
    """``adapter_model.safetensors`` and ``adapter_config.json``.

    Rows that were trained for new tokens are a correction of dure's own, which peft does not know; so the whole
    embedding is stored with them added, as peft itself does for a model whose vocabulary has grown.
    """

    tolerance = 1e-4

    def require(self, name: str, experiment: Experiment) -> None:
        """Check that there is a checkpoint that adapters could be put on.

        Raises:
            UserError: The run is a rehearsal.
        """
        super().require(name, experiment)
        if experiment.rehearsal.enabled:
            raise UserError(
                "the adapters are of a rehearsal's miniature, which is no checkpoint that anything could be put on",
                where="--format adapter",
                expected="a run on a real checkpoint",
                hint="--format transformers",
            )

    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Write adapters, the tokenizer and, where tokens were added, the embedding."""
        model = trained.model
        if not isinstance(model, PeftModel):
            raise UserError(
                "this run trained all its weights and has no adapters",
                where="--format adapter",
                expected="a run with a lora section",
                hint="--format transformers",
            )
        model.save_pretrained(str(folder))
        trained.tokenizer.save_pretrained(folder)
        base = model.get_base_model()
        # A checkpoint's configuration names the model that it was written from, such as one for masked words.
        base.config.architectures = [type(base).__name__]
        base.config.save_pretrained(folder)
        weights = {
            name: tensor
            for name, tensor in load_file(folder / _WEIGHTS).items()
            if not set(_NEW_ROWS) & set(name.split("."))
        }
        known, *others = _readers(base)
        for name in others:
            here = _PREFIX.format(known)
            copies = {key: tensor.clone() for key, tensor in weights.items() if key.startswith(here)}
            weights |= {key.replace(here, _PREFIX.format(name)): tensor for key, tensor in copies.items()}
        if others:
            config = read_json(folder / CONFIG_NAME, what="configuration of the adapters")
            write_json(
                folder / CONFIG_NAME, config | {"target_modules": [*config["target_modules"], *others]}
            )
        save_file(weights | _embeddings(model), folder / _WEIGHTS, metadata={"format": "pt"})


def _readers(base: PreTrainedModel) -> list[str]:
    """Return the names under which an adapted embedding is read, first the one that peft stores its adapter under.

    In training encoder and decoder read it through one module. A model that is loaded has one for each, and peft adapts
    each by itself.
    """
    embedding = base.get_input_embeddings()
    names = [name for name, module in base.named_modules(remove_duplicate=False) if module is embedding]
    return names if isinstance(embedding, BaseTunerLayer) else names[:1]


def _embeddings(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the embedding matrices whose rows were trained, corrected, by the name that the model has them under."""
    base: PreTrainedModel = model.get_base_model()
    rows = rows_by_matrix(base)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    corrected = {}
    for matrix in embedding_matrices(base):
        trained = rows.get(id(matrix))
        if trained is not None:
            whole = matrix.detach().to("cpu", torch.float32, copy=True)
            corrected[names[id(matrix)]] = whole.index_add_(
                0, trained.row_ids.cpu(), trained.correction.detach().cpu()
            )
    return corrected
