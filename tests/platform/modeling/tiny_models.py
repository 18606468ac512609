"""Tiny models of each kind, with random weights, and experiments on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from dure.config.schema import Experiment, Profile

TEXTS = [
    "민수: 월요일에 도서관에서 책을 빌렸다.",
    "서연은 화요일에 회의실에서 보고서를 썼다.",
    "지훈은 수요일에 시장에서 우산을 샀다.\n유진은 집에 있었다.",
] * 5
SPECIAL = ("#Person1#", "#Person2#", "#Email#")
POSITIONS = 64
"""Positions of the tiny BART."""
PADDED_BY = 20
"""Rows of the T5 checkpoint's embedding beyond its tokenizer, as real ones have."""

T5_SIZES = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 1,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART_SIZES = {
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": POSITIONS,
    "forced_eos_token_id": None,
}
TARGETS = {
    "t5": ("q", "k", "v", "o"),
    "mt5": ("q", "k", "v", "o", "wi_0", "wi_1", "wo"),
    "bart": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}

CPU = Profile(name="cpu", device="cpu")


def experiment_of(kind: str, checkpoint: str | Path, **sections: Any) -> Experiment:
    """An experiment on one checkpoint; ``sections`` replace its own."""
    return Experiment.model_validate(
        {
            "family": "trainables.summarization",
            "experiment": {"name": kind},
            "model": {"checkpoint": str(checkpoint), "architecture": kind},
            "generation": {"max_length": POSITIONS},
            **sections,
            "tokenizer": {
                "encoder_max_len": POSITIONS,
                "decoder_max_len": POSITIONS,
                **sections.get("tokenizer", {"special_tokens": SPECIAL}),
            },
        }
    )


def build(kind: str, vocab_size: int) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "t5":
        return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size + PADDED_BY, **T5_SIZES))
    if kind == "mt5":
        model = MT5ForConditionalGeneration(MT5Config(vocab_size=vocab_size, **T5_SIZES))
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        return model
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    return BartForConditionalGeneration(BartConfig(vocab_size=vocab_size, **ids, **BART_SIZES))
