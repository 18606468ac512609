"""A small Korean encoder with random weights, and the experiment that trains it on real film reviews."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from dure.config.schema import Experiment

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Where the real tables lie; they are no part of the repository."""
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
}


def require_data() -> None:
    """End the benchmark with a word when the real data is not there."""
    missing = [
        name
        for name in (
            "nsmc/train_small.csv",
            "nsmc/dev.csv",
            "dialogsum/train.csv",
            "tokenizers/kcbert/vocab.txt",
        )
        if not (DATA / name).is_file()
    ]
    if missing:
        print(f"skipped: this needs the real data, and {DATA} lacks {', '.join(missing)}", file=sys.stderr)
        raise SystemExit(0)


def save_encoder(folder: Path, *, seed: int) -> Path:
    """Save a BERT of two layers, 128 wide, with random weights and KcBERT's vocabulary; return its folder."""
    folder.mkdir(parents=True)
    shutil.copyfile(DATA / "tokenizers" / "kcbert" / "vocab.txt", folder / "vocab.txt")
    # Lower-casing would take Hangul syllables apart, of which the vocabulary is made.
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    num_tokens = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    torch.manual_seed(seed)
    BertModel(BertConfig(vocab_size=num_tokens, **SIZES)).save_pretrained(folder)
    return folder


def experiment(name: str, encoder: Path, *, seed: int, **training: Any) -> Experiment:
    """Return the experiment that trains an encoder on the reviews.

    Args:
        name: Its name.
        encoder: Folder from :func:`save_encoder`.
        seed: Seed of the head, the order of the rows and the dropout.
        **training: What its training section has other than usual here.
    """
    usual = {
        "best_metric": "eval_accuracy",
        "batch_size": 32,
        "eval_batch_size": 128,
        "learning_rate": 5e-4,
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "log_every": 25,
    }
    return Experiment.model_validate(
        {
            "family": "trainables.transfer",
            "experiment": {"name": name, "seed": seed},
            "model": {"checkpoint": str(encoder)},
            "tokenizer": {"encoder_max_len": 64},
            "data": {
                "train": str(DATA / "nsmc" / "train_small.csv"),
                "dev": str(DATA / "nsmc" / "dev.csv"),
            },
            "training": {**usual, **training},
        }
    )
