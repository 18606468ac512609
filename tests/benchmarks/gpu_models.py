"""Models and rows of ``tests.benchmarks.gpu``: random weights, and made-up rows with the lengths of DialogSum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PretrainedConfig,
    PreTrainedModel,
)

from dure.modeling.tokens import state_real_tying
from tests.benchmarks.throughput import DECODER_MAX_LEN, ENCODER_MAX_LEN, VOCABULARY, rows, tokenizer
from trainables.red_heart.model import PRESETS, RedHeartConfig, RedHeartModel

_MANY_ROWS, _FEW_ROWS = 2000, 16
_SUMMARIES = {"family": "trainables.summarization", "task": {"rouge_tokenizer": "character"}}


@dataclass(frozen=True)
class Kind:
    """A model to build, and how it is trained."""

    model_class: type[PreTrainedModel]
    """Its class."""
    config: PretrainedConfig
    """Its sizes."""
    batch_size: int
    """Rows of a step."""
    num_rows: int
    """Rows to train on."""
    experiment: Mapping[str, Any]
    """What the experiment says of family, task and metric."""
    is_full_length: bool = False
    """Whether all rows are of the greatest length, in place of DialogSum's."""
    is_untied: bool = False
    """Whether the output layer has weights of its own, whatever the configuration says."""

    @property
    def is_seq2seq(self) -> bool:
        """Whether the labels are texts of an encoder–decoder."""
        return bool(self.config.is_encoder_decoder)

    def of_size(self, batch_size: int) -> Kind:
        """Return it with so many rows at once."""
        return replace(self, batch_size=batch_size)

    def at_full_length(self, batch_size: int) -> Kind:
        """Return it with so many rows of full length at once."""
        return replace(self, batch_size=batch_size, num_rows=8 * batch_size, is_full_length=True)

    def build(self, device: str) -> PreTrainedModel:
        """Build the model with random weights on a device."""
        torch.manual_seed(42)
        with torch.device(device):
            model = self.model_class(
                deepcopy(self.config)
            )  # what is said below, or by a trainer, is of one model
        if self.is_untied:
            output = model.get_output_embeddings()
            output.weight = nn.Parameter(output.weight.detach().clone())
            state_real_tying(model)
        return model

    def save(self, folder: Path, device: str) -> None:
        """Save the model in bf16 with a tokenizer, as a checkpoint to adapt."""
        self.build(device).bfloat16().save_pretrained(folder)
        tokenizer().save_pretrained(folder)

    def dataset(self) -> datasets.Dataset:
        """Draw rows: with summaries, with a class, or with the values of Red Heart; or conversations."""
        random = np.random.default_rng(1)
        if self.is_full_length:
            sizes = {"input_ids": ENCODER_MAX_LEN, "labels": DECODER_MAX_LEN}
            drawn = {
                name: random.integers(3, VOCABULARY, (self.num_rows, size)).tolist()
                for name, size in sizes.items()
            }
            return datasets.Dataset.from_dict(drawn | {"length": [ENCODER_MAX_LEN] * self.num_rows})
        drawn = rows(self.num_rows)
        if self.is_seq2seq:
            return drawn
        if self.experiment["family"] == "trainables.causal":
            return drawn.map(_conversation, remove_columns="labels")
        if self.experiment["family"] == "trainables.transfer":
            labels = random.integers(self.config.num_labels, size=self.num_rows).tolist()
        else:
            shares = [random.dirichlet(np.ones(size), self.num_rows) for size in (7, 4)]
            labels = np.hstack([shares[0], random.uniform(size=(self.num_rows, 11)), shares[1]]).tolist()
        return drawn.remove_columns("labels").add_column("labels", labels)


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    """Return a text and its summary as one row of which the summary is learned."""
    ids, prompt = row["input_ids"] + row["labels"], len(row["input_ids"])
    return {
        "input_ids": ids,
        "length": len(ids),
        "prompt_length": prompt,
        "learned": [[prompt, len(ids)]],
        "control": "",
        "answer_is_cut": False,
    }


def _mt5(small: bool) -> Kind:
    sizes = {
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 12,
        "num_heads": 12,
        "vocab_size": 250_112,
    }
    if small:
        sizes = {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 1,
            "num_heads": 4,
            "vocab_size": VOCABULARY,
        }
    config = MT5Config(**sizes, decoder_start_token_id=0)
    # Built from a configuration mT5 is tied, which its checkpoints are not.
    return Kind(MT5ForConditionalGeneration, config, *_rows(small, 16), _SUMMARIES, is_untied=True)


def _kobart(small: bool) -> Kind:
    layers, width, heads, inner, words = (1, 32, 4, 64, VOCABULARY) if small else (6, 768, 16, 3072, 30_000)
    config = BartConfig(
        vocab_size=words, d_model=width, max_position_embeddings=1026,
        encoder_layers=layers, encoder_attention_heads=heads, encoder_ffn_dim=inner,
        decoder_layers=layers, decoder_attention_heads=heads, decoder_ffn_dim=inner,
        pad_token_id=0, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1,
    )  # fmt: skip
    return Kind(BartForConditionalGeneration, config, *_rows(small, 32), _SUMMARIES)


def _bert(small: bool) -> Kind:
    layers, width, heads, words = (1, 32, 4, VOCABULARY) if small else (12, 768, 12, 32_000)
    config = BertConfig(
        vocab_size=words, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, num_labels=7,
    )  # fmt: skip
    said = {"family": "trainables.transfer", "training": {"best_metric": "eval_accuracy"}}
    return Kind(BertForSequenceClassification, config, *_rows(small, 32), said)


def _red_heart(small: bool) -> Kind:
    config = RedHeartConfig(**(PRESETS["tiny"] | {"vocab_size": VOCABULARY} if small else PRESETS["730m"]))
    said = {"family": "trainables.red_heart", "training": {"best_metric": "eval_loss"}}
    return Kind(RedHeartModel, config, *_rows(small, 16), said)


def _llama(small: bool) -> Kind:
    layers, width, heads, words = (1, 32, 4, VOCABULARY) if small else (12, 768, 12, 32_000)
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=8 * width // 3, pad_token_id=0,
    )  # fmt: skip
    said = {
        "family": "trainables.causal",
        "task": {"rows": "pairs", "validate": "loss"},
        "training": {"best_metric": "eval_perplexity"},
    }
    return Kind(LlamaForCausalLM, config, *_rows(small, 32), said)


def _rows(small: bool, batch_size: int) -> tuple[int, int]:
    return (2, _FEW_ROWS) if small else (batch_size, _MANY_ROWS)


MODELS: dict[str, Callable[[bool], Kind]] = {
    "mT5-base": _mt5,
    "KoBART": _kobart,
    "BERT-base": _bert,
    "Red Heart 730M": _red_heart,
    "Llama": _llama,
}
"""Name → the model, or, of small ones, its miniature."""
