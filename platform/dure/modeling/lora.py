"""Low-rank adapters: new tokens trained, checkpoints small."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import peft
import torch
from peft.tuners.lora import model as peft_lora
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from dure.config.schema import LoraConfig
from dure.modeling.lora_targets import checked_targets, matches
from dure.modeling.replaced import replaced
from dure.modeling.rows import ADAPTER, train_rows


class AdaptedModel:
    """A frozen model with trained adapters, whose checkpoints hold what was trained and nothing else."""

    task_type: ClassVar[peft.TaskType]
    """What peft calls the task of such a model."""

    def save_pretrained(
        self: Any, save_directory: str, *, state_dict: dict[str, torch.Tensor] | None = None, **options: Any
    ) -> None:
        """Save the adapters and the new rows.

        By itself peft adds the whole embedding, frozen as it is, when a target is called ``lm_head``, asks the
        model hub about the embedding's size, and writes an adapter once for every place that shares it.
        """
        once = dict(self.named_parameters()) if state_dict is None else state_dict
        super().save_pretrained(  # type: ignore[misc]
            save_directory, state_dict=once, **(options | {"save_embedding_layers": False})
        )


class AdaptedSeq2Seq(AdaptedModel, peft.PeftModelForSeq2SeqLM):  # type: ignore[misc]  # peft has no types
    """An adapted encoder–decoder."""

    task_type = peft.TaskType.SEQ_2_SEQ_LM


class AdaptedClassifier(AdaptedModel, peft.PeftModelForSequenceClassification):  # type: ignore[misc]
    """An adapted classifier, whose head is trained whole."""

    task_type = peft.TaskType.SEQ_CLS


class AdaptedDecoder(AdaptedModel, peft.PeftModelForCausalLM):  # type: ignore[misc]
    """An adapted decoder-only language model."""

    task_type = peft.TaskType.CAUSAL_LM


def apply_lora(
    model: PreTrainedModel,
    config: LoraConfig,
    adapted_class: type[AdaptedModel],
    new_row_ids: Sequence[int],
    *,
    trained_whole: Sequence[str] = (),
) -> AdaptedModel:
    """Freeze ``model`` and give it adapters; rows of new tokens are trained as they are.

    Args:
        model: A plain or 4-bit model; it becomes part of the result.
        config: Rank, scale, dropout and targets. A target may be the embedding or the output layer as well.
            An output layer that shares its weights with the embedding gets an adapter of its own.
        adapted_class: What the model becomes; the task of the model knows it.
        new_row_ids: Rows of the embedding that must be learned.
        trained_whole: Modules of a classifier that are trained and saved whole, since they start at random:
            its head. Kept in fp32, whatever the frozen weights are in.

    Raises:
        UserError: A target matches no layer that can have an adapter.
    """
    targets = checked_targets(model, config.targets, trained_whole)
    embedding = model.get_input_embeddings()
    readers = [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Embedding) and module.weight is embedding.weight
    ]
    adapts_embedding = any(matches(name, target) for name in readers for target in targets)
    if adapts_embedding:
        # Encoder and decoder may read the matrix through modules of their own. One adapter must serve all.
        for name in readers:
            model.set_submodule(name, embedding)
        targets = tuple(t for t in targets if not any(matches(name, t) for name in readers))
        targets += (next(name for name, module in model.named_modules() if module is embedding),)
    peft_config = peft.LoraConfig(
        task_type=adapted_class.task_type,
        modules_to_save=list(trained_whole) or None,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
        base_model_name_or_path=model.name_or_path,
    )
    with warnings.catch_warnings(), _bitsandbytes_if_needed(model):
        # It warns that merging adapters of tied layers needs care; dure.modeling.export takes it.
        warnings.filterwarnings("ignore", message=r".*tie_word_embeddings=True.*")
        build: Callable[..., AdaptedModel] = adapted_class
        adapted = build(model, peft_config, adapter_name=ADAPTER)
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.modules_to_save[ADAPTER].float()
    if adapts_embedding:
        for name in readers:
            model.set_submodule(name, model.get_input_embeddings())
    train_rows(model, new_row_ids)
    return adapted


@contextmanager
def _bitsandbytes_if_needed(model: PreTrainedModel) -> Iterator[None]:
    """Keep peft from importing bitsandbytes, which takes a second, where no layer is in 4 bits."""
    names = () if getattr(model, "is_quantized", False) else ("is_bnb_available", "is_bnb_4bit_available")
    with ExitStack() as during:
        for name in names:
            during.enter_context(replaced(peft_lora, name, lambda: False))
        yield
