"""The rehearsal's model and tokenizer: the experiment's architecture in miniature, from nothing but the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from dure.config.schema import Experiment, RehearsalConfig
from dure.errors import UserError
from dure.modeling.task import Task


@dataclass(frozen=True)
class Architecture:
    """What a rehearsal must know about a model type.

    Attributes:
        defaults: Settings of its usual checkpoints, for when no checkpoint is at hand.
        sizes: What to change in a configuration to make it small.
        control_tokens: Roles of the tokenizer's control tokens, in the order of their ids.
        train: Trains its kind of tokenizer on texts, to a vocabulary of at most so many.
        decoder_start: Role of the control token with which its decoder begins; None for an encoder alone.
        keeps_newlines: Whether its tokenizer keeps newlines; sentencepiece's, as T5's, makes them spaces.
        output_is_separate: Whether its usual checkpoints have an output matrix of their own.
    """

    defaults: dict[str, Any]
    sizes: Callable[[RehearsalConfig, int], dict[str, Any]]
    control_tokens: dict[str, str]
    train: Callable[[Architecture, list[str], int], Tokenizer]
    decoder_start: str | None = None
    keeps_newlines: bool = False
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


def _bert_sizes(mini: RehearsalConfig, positions: int) -> dict[str, Any]:
    return {
        "hidden_size": mini.hidden_size,
        "intermediate_size": 2 * mini.hidden_size,
        "num_attention_heads": mini.num_heads,
        "num_hidden_layers": mini.num_layers,
        "max_position_embeddings": positions,
        "initializer_range": mini.hidden_size**-0.5,
    }


def _distilbert_sizes(mini: RehearsalConfig, positions: int) -> dict[str, Any]:
    return {
        "dim": mini.hidden_size,
        "hidden_dim": 2 * mini.hidden_size,
        "n_heads": mini.num_heads,
        "n_layers": mini.num_layers,
        "max_position_embeddings": positions,
        "initializer_range": mini.hidden_size**-0.5,
    }


_AS_SENTENCEPIECE = normalizers.Sequence(
    [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
)
"""What T5's tokenizer does to a text first; newlines become spaces."""


def _train_bpe(architecture: Architecture, texts: list[str], size: int) -> Tokenizer:
    """Train BPE over words, ending every text in the end-of-sequence token.

    For T5 too, whose own tokenizer is Unigram: its trainer gives another vocabulary in every process.
    """
    tokens = architecture.control_tokens
    tokenizer = Tokenizer(models.BPE(unk_token=tokens["unk_token"]))
    tokenizer.normalizer = normalizers.NFC() if architecture.keeps_newlines else _AS_SENTENCEPIECE
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(tokens.values()), show_progress=False)
    tokenizer.train_from_iterator(_common_characters(texts, size // 2), trainer)
    eos = tokens["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, tokenizer.token_to_id(eos))]
    )
    return tokenizer


def _train_wordpiece(architecture: Architecture, texts: list[str], size: int) -> Tokenizer:
    """Train WordPiece, with the control tokens of BERT around every text.

    The pieces are those of BPE over words that begin with a mark: the trainer of WordPiece itself gives
    pieces inside of words other ids in every process. Letters keep their case and Hangul its syllables,
    which BERT's usual way of stripping accents takes apart.
    """
    tokens = architecture.control_tokens
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(strip_accents=False, lowercase=False)]
    )
    words = Tokenizer(models.BPE())
    words.normalizer = normalizer
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    # A word with a single unknown letter is unknown as a whole, so letters go before longer pieces.
    single = _letters(words, texts)[: 3 * size // 4]
    num_longer = max(0, size - len(tokens) - len(single))
    alphabet = {letter for text in texts for letter in normalizer.normalize_str(text)} | {WORD_MARK}
    # Its first merges join the mark with a letter, which gives no longer piece.
    num_merges = len(single) + num_longer
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + num_merges, show_progress=False)
    words.train_from_iterator(texts, trainer)
    learned = sorted(words.get_vocab().items(), key=lambda item: item[1])
    pieces = [_wordpiece(piece) for piece, _ in learned]
    longer = [piece for piece in pieces if len(piece.removeprefix("##")) > 1][:num_longer]
    vocabulary = dict.fromkeys([*tokens.values(), *single, *longer])
    tokenizer = Tokenizer(
        models.WordPiece(
            {piece: place for place, piece in enumerate(vocabulary)}, unk_token=tokens["unk_token"]
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    ends = [(tokens[role], tokenizer.token_to_id(tokens[role])) for role in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{ends[0][0]} $A {ends[1][0]}", special_tokens=ends
    )
    return tokenizer


def _letters(words: Tokenizer, texts: list[str]) -> list[str]:
    """Return the pieces of one letter, at the beginning of a word or inside, the frequent ones first."""
    counts: Counter[str] = Counter()
    for text in texts:
        for word, _ in words.pre_tokenizer.pre_tokenize_str(words.normalizer.normalize_str(text)):
            counts.update(
                _wordpiece(word[:2]) if place == 0 else f"##{letter}" for place, letter in enumerate(word[1:])
            )
    return sorted(counts, key=lambda piece: (-counts[piece], piece))


def _wordpiece(piece: str) -> str:
    """Return a piece of marked words as WordPiece writes it."""
    return piece.removeprefix(WORD_MARK) if piece.startswith(WORD_MARK) else f"##{piece}"


WORD_MARK = "▁"
"""What stands before the first piece of a word in BPE."""
_T5_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BART_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ARCHITECTURES: dict[str, Architecture] = {
    "t5": Architecture(
        {"feed_forward_proj": "relu"}, _t5_sizes, _T5_TOKENS, _train_bpe, decoder_start="pad_token"
    ),
    "mt5": Architecture(
        {"feed_forward_proj": "gated-gelu"},
        _t5_sizes,
        _T5_TOKENS,
        _train_bpe,
        decoder_start="pad_token",
        output_is_separate=True,
    ),
    "bart": Architecture(
        {}, _bart_sizes, _BART_TOKENS, _train_bpe, decoder_start="eos_token", keeps_newlines=True
    ),
    "bert": Architecture({}, _bert_sizes, _BERT_TOKENS, _train_wordpiece),
    "distilbert": Architecture({}, _distilbert_sizes, _BERT_TOKENS, _train_wordpiece),
}
"""Model types that can be rehearsed."""

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

    The experiment's special tokens are cut out of the texts, so that they are as new to the tokenizer as they
    are to a real one.
    """
    architecture = ARCHITECTURES[model_type(experiment)]
    pieces = list(_without(texts, experiment.tokenizer.all_special_tokens))
    tokenizer = architecture.train(architecture, pieces, experiment.rehearsal.vocab_size)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **architecture.control_tokens)


def build_miniature(
    experiment: Experiment, tokenizer: PreTrainedTokenizerBase, task: Task
) -> PreTrainedModel:
    """Build the experiment's architecture in miniature, with random weights drawn by its seed.

    When the checkpoint is a folder, its configuration is kept in everything but the sizes. The vocabulary is
    the tokenizer's without the experiment's special tokens: these are to be added as to a real checkpoint.

    Raises:
        UserError: The architecture is not one for the task.
    """
    name = model_type(experiment)
    architecture = ARCHITECTURES[name]
    config = _folder_config(experiment) or AutoConfig.for_model(name, **architecture.defaults)
    lengths = experiment.tokenizer
    positions = max(lengths.encoder_max_len, lengths.decoder_max_len, experiment.generation.max_length) + 2
    if not task.fits(config):
        fitting = [each for each in ARCHITECTURES if task.fits(AutoConfig.for_model(each))]
        raise UserError(
            f"'{name}' is no {task.kind}",
            where="model.architecture",
            expected=f"one of {', '.join(fitting)}",
        )
    changes = architecture.sizes(experiment.rehearsal, positions) | {
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.pad_token_id,
        **task.config_changes,
    }
    if architecture.decoder_start is not None:
        changes |= {
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "decoder_start_token_id": getattr(tokenizer, f"{architecture.decoder_start}_id"),
            "forced_eos_token_id": None,
            "forced_bos_token_id": None,
        }
    for key, value in changes.items():
        setattr(config, key, value)
    set_seed(experiment.experiment.seed)
    model: PreTrainedModel = task.auto_class.from_config(config)
    if architecture.decoder_start is not None:
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
        # Not quite the same, or loading would take the two for one that is tied.
        output.weight = torch.nn.Parameter(embedding.weight * 1.01)
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


def _common_characters(texts: Sequence[str], limit: int) -> Sequence[str]:
    """Return the texts with all but the ``limit`` most frequent characters made spaces.

    Every character of the training text takes a place in the vocabulary, and the Hangul syllables of a real
    corpus alone can be more than a small vocabulary holds. The rare ones are unknown to it instead.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    if len(counts) <= limit:
        return texts
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    blank = dict.fromkeys(map(ord, ranked[limit:]), " ")
    return [text.translate(blank) for text in texts]
