"""Saving a trained model as one that stands alone: adapters merged, loadable without dure and peft."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from dure.files import written_beside
from dure.modeling.rows import ADAPTER, NewRows, rows_by_matrix
from dure.modeling.tokens import state_real_tying


def export(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save ``model`` and its tokenizer so that ``from_pretrained(folder)`` gives the same logits.

    The model itself stays as it is. Adapted models are merged and saved in fp32, from 4-bit weights too.
    """
    plain = merged(model)
    with written_beside(folder) as beside:
        plain.save_pretrained(beside)
        tokenizer.save_pretrained(beside)


def merged(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return a model itself when it has no adapters; else a plain one in fp32 that computes the same.

    That one shares no trained weight with the model.
    """
    if not isinstance(model, PeftModel):
        return model
    base = model.get_base_model()
    weights = _merged_weights(base)
    config = copy.deepcopy(base.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    with no_init_weights():
        plain: PreTrainedModel = type(base)(config)
    plain.load_state_dict(weights, assign=True)
    state_real_tying(plain)
    if not plain.config.tie_word_embeddings:
        _make_untied_loadable(plain)
    if base.can_generate():
        plain.generation_config = copy.deepcopy(base.generation_config)
    return plain.eval()


def _merged_weights(base: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return every parameter and saved buffer of a plain model of this kind, adapters and new rows added.

    Places that share a weight and its adapter share one parameter.
    """
    rows = rows_by_matrix(base)
    made: dict[tuple[int, int], nn.Parameter] = {}
    weights: dict[str, torch.Tensor] = {}
    inside: tuple[str, ...] = ()
    for name, module in base.named_modules(remove_duplicate=False):
        if isinstance(module, NewRows) or name.startswith(inside):
            inside += (f"{name}.",) if isinstance(module, NewRows) else ()
            continue
        if isinstance(module, ModulesToSaveWrapper):
            inside += (f"{name}.",)
            trained = module.modules_to_save[ADAPTER].state_dict(prefix=f"{name}.")
            weights |= {
                key: nn.Parameter(tensor.detach().to("cpu", torch.float32, copy=True))
                for key, tensor in trained.items()
            }
            continue
        adapter = module if isinstance(module, LoraLayer) else None
        layer = module.get_base_layer() if adapter is not None else module
        if adapter is not None:
            inside += (f"{name}.",)
        for key, tensor in _saved_tensors(layer):
            place = f"{name}.{key}" if name else key
            if key != "weight":
                weights[place] = tensor.detach().float() if tensor.is_floating_point() else tensor
                continue
            made_from = (id(tensor), id(adapter))
            if made_from not in made:
                made[made_from] = nn.Parameter(_merged_weight(tensor, adapter, rows.get(id(tensor))))
            weights[place] = made[made_from]
    return weights


def _saved_tensors(layer: nn.Module) -> list[tuple[str, torch.Tensor]]:
    hidden = layer._non_persistent_buffers_set
    return [
        *layer.named_parameters(recurse=False),
        *((key, buffer) for key, buffer in layer.named_buffers(recurse=False) if key not in hidden),
    ]


@torch.no_grad()
def _merged_weight(weight: torch.Tensor, adapter: LoraLayer | None, rows: NewRows | None) -> torch.Tensor:
    """Return W + scale · B·A, plus the correction of new rows, in fp32."""
    merged = _full_precision(weight)
    if adapter is not None and ADAPTER in adapter.scaling:
        merged += adapter.get_delta_weight(ADAPTER).to(merged)
    if rows is not None:
        merged.index_add_(0, rows.row_ids, rows.correction.to(merged))
    return merged.cpu()


def _full_precision(weight: torch.Tensor) -> torch.Tensor:
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight.detach().to(torch.float32, copy=True)
    from bitsandbytes.functional import dequantize_4bit

    full: torch.Tensor = dequantize_4bit(weight.data, state)
    return full.to(torch.float32)


def _make_untied_loadable(model: PreTrainedModel) -> None:
    """Arrange an untied model so that every version of transformers loads what was saved.

    * T5 scales the decoder's output by d^-0.5 when it is tied and, in older versions, only then: the factor
      moves into the output matrix.
    * A configuration that says untied (BART's) unties encoder and decoder as well, and their copies of the
      embedding are then read from the file, so each must be a tensor of its own.
    """
    config = model.config
    if getattr(config, "scale_decoder_outputs", False):
        with torch.no_grad():
            model.get_output_embeddings().weight *= config.d_model**-0.5
        config.scale_decoder_outputs = False
    if type(config).from_dict(config.to_dict()).tie_word_embeddings:
        return
    embedding = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not embedding and module.weight is embedding.weight:
            module.weight = nn.Parameter(embedding.weight.detach().clone())
