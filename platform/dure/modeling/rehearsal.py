"""The rehearsal's model and tokenizer: the experiment's architecture in miniature, from nothing but the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from dure.config.schema import Experiment, RehearsalConfig
from dure.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """What a rehearsal must know about a model type.

    Attributes:
        defaults: Settings of its usual checkpoints, for when no checkpoint is at hand.
        sizes: What to change in a configuration to make it small.
        control_tokens: Roles of the tokenizer's control tokens, in the order of their ids.
        decoder_start: Role of the control token with which its decoder begins.
        keeps_newlines: Whether its tokenizer keeps newlines; sentencepiece's, as T5's, makes them spaces.
        output_is_separate: Whether its usual checkpoints have an output matrix of their own.
    """

    defaults: dict[str, Any]
    sizes: Callable[[RehearsalConfig, int], dict[str, Any]]
    control_tokens: dict[str, str]
    decoder_start: str
    keeps_newlines: bool
    output_is_separate: bool = False


def _t5_sizes(mini: RehearsalConfig, positions: int) -> dict[str, Any]:
    return {
        "d_model": mini.hidden_size,
        "d_kv": mini.hidden_size // mini.num_heads,
        "d_ff": 2 * mini.hidden_size,
        "num_heads": mini.num_heads,
        "num_layers": mini.num_layers,
        "num_decoder_layers": mini.num_layers,
    }


def _bart_sizes(mini: RehearsalConfig, positions: int) -> dict[str, Any]:
    return {
        "d_model": mini.hidden_size,
        "encoder_ffn_dim": 2 * mini.hidden_size,
        "decoder_ffn_dim": 2 * mini.hidden_size,
        "encoder_attention_heads": mini.num_heads,
        "decoder_attention_heads": mini.num_heads,
        "encoder_layers": mini.num_layers,
        "decoder_layers": mini.num_layers,
        "max_position_embeddings": positions,
        # The standard deviation that keeps the scale of activations at this width, as 0.02 does at a real one.
        "init_std": mini.hidden_size**-0.5,
    }


_T5_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BART_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
ARCHITECTURES: dict[str, Architecture] = {
    "t5": Architecture(
        {"feed_forward_proj": "relu"}, _t5_sizes, _T5_TOKENS, decoder_start="pad_token", keeps_newlines=False
    ),
    "mt5": Architecture(
        {"feed_forward_proj": "gated-gelu"},
        _t5_sizes,
        _T5_TOKENS,
        decoder_start="pad_token",
        keeps_newlines=False,
        output_is_separate=True,
    ),
    "bart": Architecture({}, _bart_sizes, _BART_TOKENS, decoder_start="eos_token", keeps_newlines=True),
}
"""Model types that can be rehearsed."""

_AS_SENTENCEPIECE = normalizers.Sequence(
    [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
)
"""What T5's tokenizer does to a text first; newlines become spaces."""

LOGIT_SPREAD = 2.0
"""Standard deviation of the miniature's logits before training; see :func:`_make_learnable`."""


def model_type(experiment: Experiment) -> str:
    """Return the model type that the rehearsal builds: the checkpoint folder's, or ``model.architecture``.

    Raises:
        UserError: It is not said, or not one that can be rehearsed.
    """
    config = _folder_config(experiment)
    name = experiment.model.architecture if config is None else config.model_type
    if name not in ARCHITECTURES:
        problem = (
            "a rehearsal must know the model's type" if name is None else f"'{name}' cannot be rehearsed"
        )
        raise UserError(problem, where="model.architecture", expected=f"one of {', '.join(ARCHITECTURES)}")
    return name


def train_tokenizer(texts: Iterator[str], experiment: Experiment) -> PreTrainedTokenizerFast:
    """Train a tokenizer with the architecture's control tokens; equal texts give equal tokenizers.

    It is BPE over words for every architecture: the Unigram trainer, which T5's tokenizer comes from, gives
    another vocabulary in every process. The experiment's special tokens are cut out of the texts, so that
    they are as new to the tokenizer as they are to a real one.
    """
    architecture = ARCHITECTURES[model_type(experiment)]
    tokens = architecture.control_tokens
    size = experiment.rehearsal.vocab_size
    tokenizer = Tokenizer(models.BPE(unk_token=tokens["unk_token"]))
    tokenizer.normalizer = normalizers.NFC() if architecture.keeps_newlines else _AS_SENTENCEPIECE
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(tokens.values()), show_progress=False)
    pieces = _without(texts, experiment.tokenizer.all_special_tokens)
    tokenizer.train_from_iterator(_common_characters(pieces, size // 2), trainer)
    eos = tokens["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, tokenizer.token_to_id(eos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def build_miniature(experiment: Experiment, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Build the experiment's architecture in miniature, with random weights drawn by its seed.

    When the checkpoint is a folder, its configuration is kept in everything but the sizes. The vocabulary is
    the tokenizer's without the experiment's special tokens: these are to be added as to a real checkpoint.
    """
    name = model_type(experiment)
    architecture = ARCHITECTURES[name]
    config = _folder_config(experiment) or AutoConfig.for_model(name, **architecture.defaults)
    lengths = experiment.tokenizer
    positions = max(lengths.encoder_max_len, lengths.decoder_max_len, experiment.generation.max_length) + 2
    changes = architecture.sizes(experiment.rehearsal, positions) | {
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "decoder_start_token_id": getattr(tokenizer, f"{architecture.decoder_start}_id"),
        "forced_eos_token_id": None,
        "forced_bos_token_id": None,
    }
    for key, value in changes.items():
        setattr(config, key, value)
    set_seed(experiment.experiment.seed)
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config)
    _make_learnable(model, separate_output=architecture.output_is_separate)
    return model


@torch.no_grad()
def _make_learnable(model: PreTrainedModel, *, separate_output: bool) -> None:
    """Scale the random embedding and output rows so that adapters can learn while the rows stay frozen.

    The hidden state in front of the output is normalised to √d. Output rows as small as the usual
    initialisation makes them (BART) then cap the logits near zero, so that nothing can be predicted with
    confidence; input rows as large as T5's drown what the layers add to them. Rows of the output aligned with
    those of the input let the model copy, which is most of summarising.
    """
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    width = embedding.weight.shape[1]
    embedding.weight.mul_(LOGIT_SPREAD * width**-0.5 / embedding.weight.std())
    if getattr(model.config, "scale_decoder_outputs", False):
        # T5 scales the hidden state by d^-0.5 again, which suits its large rows but not these.
        model.decoder.final_layer_norm.weight.mul_(width**0.5)
    if separate_output:
        output.weight = torch.nn.Parameter(embedding.weight.clone())
        model.config.tie_word_embeddings = False


def _folder_config(experiment: Experiment) -> PretrainedConfig | None:
    """Return the configuration of a checkpoint that is a folder here, else None."""
    folder = Path(experiment.model.checkpoint)
    return AutoConfig.from_pretrained(folder) if (folder / "config.json").is_file() else None


def _without(texts: Iterator[str], tokens: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts cut at the given tokens."""
    if not tokens:
        yield from texts
        return
    cut = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
    for text in texts:
        yield from cut.split(text)


def _common_characters(texts: Iterator[str], limit: int) -> list[str]:
    """Return the texts with all but the ``limit`` most frequent characters made spaces.

    Every character of the training text takes a place in the vocabulary, and the Hangul syllables of a real
    corpus alone can be more than a small vocabulary holds. The rare ones are unknown to it instead.
    """
    kept = list(texts)
    counts: Counter[str] = Counter()
    for text in kept:
        counts.update(text)
    if len(counts) <= limit:
        return kept
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    blank = dict.fromkeys(map(ord, ranked[limit:]), " ")
    return [text.translate(blank) for text in kept]
