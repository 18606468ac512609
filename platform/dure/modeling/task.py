"""What a model is loaded for, and the head that a classifier has for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from dure.errors import UserError
from dure.modeling.lora import AdaptedClassifier, AdaptedDecoder, AdaptedModel, AdaptedSeq2Seq

HEADS = ("classifier", "pre_classifier", "score", "classification_head", "pooler.dense", "head.dense")
"""What transformers calls the head of a classifier; kept out of 4 bits, since it is trained whole.

DeBERTa's has a pooler, which BERT's masked language model lacks too, and ModernBERT's a layer called head.
"""


@dataclass(frozen=True)
class Task:
    """What a model is loaded for."""

    auto_class: Any
    """The class of transformers that loads it, such as ``AutoModelForSeq2SeqLM``."""
    adapted_class: type[AdaptedModel]
    """What such a model is once it has adapters."""
    kind: str
    """Such a model in words."""
    expected: str
    """What the user should give when the checkpoint is no such model."""
    takes_encoder_decoders: bool = True
    """Whether the model may be an encoder–decoder."""
    takes_encoders: bool = True
    """Whether it may be one that was trained to fill in masked tokens."""
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    """What the task sets in the configuration, such as its classes."""
    continues: bool = False
    """Whether it writes behind what it reads, with positions that go on."""
    has_head: bool = False
    """Whether it puts a head on the checkpoint that is trained whole, and never loaded in 4 bits."""

    def fits(self, config: PretrainedConfig) -> bool:
        """Whether a model of this configuration can do the task."""
        known = type(config) in self.auto_class._model_mapping
        if config.is_encoder_decoder:
            return known and self.takes_encoder_decoders
        return known and (self.takes_encoders or type(config) not in AutoModelForMaskedLM._model_mapping)

    def check(self, config: PretrainedConfig, checkpoint: str | None) -> None:
        """Refuse a model that cannot do the task: of a checkpoint, or of ``model.architecture`` where there is none.

        Raises:
            UserError: It cannot.
        """
        if self.fits(config):
            return
        name = config.model_type
        what = f"'{name}'" if checkpoint is None else f"'{checkpoint}' is a {name} model, which"
        where = "model.architecture" if checkpoint is None else "model.checkpoint"
        raise UserError(
            f"{what} is no {self.kind}",
            where=where,
            expected=self.expected,
            hint=f"another {where}, or the family that fits this one (dure list)",
        )


SEQ2SEQ = Task(
    AutoModelForSeq2SeqLM,
    AdaptedSeq2Seq,
    "encoder-decoder",
    "a model that reads a text and writes another, such as T5, mT5 or BART",
)
"""Reading a text and writing another."""

CAUSAL = Task(
    AutoModelForCausalLM,
    AdaptedDecoder,
    "decoder-only language model",
    "a model that continues a text, such as Llama, Qwen or Gemma",
    takes_encoder_decoders=False,
    takes_encoders=False,
    continues=True,
)
"""Continuing a text."""


def classification(classes: Sequence[str], *, multi_label: bool = False) -> Task:
    """Return the task of saying which of ``classes``, in the order of their ids, a text is of: one, or any."""
    return Task(
        AutoModelForSequenceClassification,
        AdaptedClassifier,
        "text encoder",
        "an encoder that transformers can put a classification head on, such as BERT or DistilBERT",
        takes_encoder_decoders=False,
        config_changes={
            "id2label": dict(enumerate(classes)),
            "label2id": {name: place for place, name in enumerate(classes)},
            "problem_type": f"{'multi' if multi_label else 'single'}_label_classification",
        },
        has_head=True,
    )


def starting_at_random(model: PreTrainedModel, untaught: Sequence[str]) -> list[str]:
    """Return the modules of a classifier that start at random: the head, and those of ``untaught`` weights."""
    heads = [name for name, module in model.named_children() if _is_head(model, module)]
    others = {name.rpartition(".")[0] for name in untaught if name.partition(".")[0] not in heads}
    return [*heads, *sorted(others)]


def classifier_modules(model: PreTrainedModel | PeftModel) -> dict[str, tuple[str, ...]]:
    """Return ``encoder`` and ``head`` of a classifier with the prefixes of their parameters' names."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    inside = next(f"{name}." if name else "" for name, module in model.named_modules() if module is plain)
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, module in plain.named_children():
        if any(True for _ in module.parameters()):
            names[_is_head(plain, module)].append(f"{inside}{name}.")
    return {"encoder": tuple(names[False]), "head": tuple(names[True])}


def _is_head(model: PreTrainedModel, module: nn.Module) -> bool:
    """Whether a child of a classifier is trained weights beside the encoder."""
    return module is not model.base_model and any(True for _ in module.parameters())
