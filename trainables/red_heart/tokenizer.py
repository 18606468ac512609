"""Red Heart's tokenizer and token embedding: learned from the data, or taken from an encoder in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dure.errors import UserError
from dure.modeling.replaced import bars_hidden
from trainables.red_heart.model import RedHeartModel

_TOKENS = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE (Radford et al. 2019), which knows every text; equal texts give equal tokenizers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(_TOKENS[role], tokenizer.token_to_id(_TOKENS[role])) for role in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{ends[0][0]} $A {ends[1][0]}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_TOKENS)


def folder_tokenizer(folder: Path, where: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model in a folder.

    Raises:
        UserError: There is none, or it has no token for padding; ``where`` names the option.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(check_folder(folder, where))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"its tokenizer cannot be loaded: {reason}", where=f"{where}={folder}") from error
    if tokenizer.pad_token_id is None:
        raise UserError("its tokenizer has no token for padding", where=f"{where}={folder}")
    return tokenizer


@bars_hidden()
@torch.no_grad()
def take_embedding(model: RedHeartModel, folder: Path, where: str) -> str:
    """Begin with the token embedding of an encoder in a folder.

    A narrower one is turned into the width of the model by a random matrix with orthonormal rows, drawn by torch's
    seed: lengths and angles between tokens stay as they are. All is scaled to the size of a fresh embedding.

    The model has a row for every token of the encoder's tokenizer. Returns one line for the user.

    Raises:
        UserError: There is no encoder in the folder, or a wider one; ``where`` names the option.
    """
    try:
        source = AutoModel.from_pretrained(check_folder(folder, where), dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"it cannot be loaded: {reason}", where=f"{where}={folder}") from error
    rows: torch.Tensor = source.get_input_embeddings().weight.detach()
    target: torch.Tensor = model.get_input_embeddings().weight
    width = target.shape[1]
    if rows.shape[1] > width:
        raise UserError(
            f"its embedding is {rows.shape[1]} wide", where=f"{where}={folder}", expected=f"at most {width}"
        )
    if rows.shape[1] < width:
        rows = rows @ torch.linalg.qr(torch.randn(width, rows.shape[1]))[0].T
    count = min(len(rows), len(target))
    target[:count] = rows[:count] * (model.config.initializer_range / rows[:count].std())
    target[model.config.pad_token_id] = 0
    return f"token embedding of {count:,} tokens from {folder}"


def check_folder(folder: Path, where: str) -> Path:
    """Return a folder that holds a saved model.

    Raises:
        UserError: It does not; ``where`` names the option.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"there is no model in '{folder}'", where=where, expected="a folder saved with save_pretrained"
        )
    return folder
