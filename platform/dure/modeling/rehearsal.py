"""The rehearsal's model and tokenizer: the experiment's architecture in miniature, from nothing but the data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from dure.config.schema import Experiment
from dure.errors import UserError, named, nearest
from dure.modeling.folders import BROKEN_CONFIG
from dure.modeling.shrinking import shrink
from dure.modeling.task import Task
from dure.modeling.tokenizer_training import ROLES, plan_of, train

USUAL: dict[str, dict[str, Any]] = {
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "roberta": {"type_vocab_size": 1},
    "llama": {"num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 8},
    "qwen3": {"num_key_value_heads": 8},
}
"""Settings of the usual checkpoints that transformers' default configuration lacks, for when none is at hand."""
OUTPUT_IS_SEPARATE = ("mt5", "umt5")
"""Model types whose checkpoints have an output matrix of their own, whatever their configuration says."""
LOGIT_SPREAD = 2.0
"""Standard deviation of the miniature's logits before training; see :func:`_make_learnable`."""


def model_type(experiment: Experiment) -> str:
    """Return the model type that the rehearsal builds: the checkpoint folder's, or ``model.architecture``.

    Raises:
        UserError: It is not said, or transformers knows no such type.
    """
    config = folder_config(experiment)
    if config is not None:
        return str(config.model_type)
    name = experiment.model.architecture
    if name is not None and name in CONFIG_MAPPING:
        return name
    similar = None if name is None else nearest(name, list(CONFIG_MAPPING))
    raise UserError(
        "a rehearsal must know the model's type" if name is None else f"transformers knows no '{name}'",
        where="model.architecture",
        expected="the model_type of the checkpoint's config.json, such as bert, electra, mt5, bart or llama",
        hint=f"model.architecture={similar}" if similar else None,
    )


def train_tokenizer(texts: Iterator[str], experiment: Experiment) -> PreTrainedTokenizerFast:
    """Train a tokenizer with the architecture's control tokens; equal texts give equal tokenizers.

    The experiment's special tokens are cut out of the texts, so that they are as new to the tokenizer as they
    are to a real one.
    """
    plan = plan_of(model_type(experiment))
    pieces = list(_without(texts, experiment.tokenizer.all_special_tokens))
    return train(plan, pieces, experiment.rehearsal.vocab_size)


def build_miniature(
    experiment: Experiment, tokenizer: PreTrainedTokenizerBase, task: Task
) -> PreTrainedModel:
    """Build the experiment's architecture in miniature, with random weights drawn by its seed.

    When the checkpoint is a folder, its configuration is kept in everything but the sizes. The vocabulary is
    the tokenizer's without the experiment's special tokens: these are to be added as to a real checkpoint.

    Raises:
        UserError: The architecture is not one for the task, or cannot be made small.
    """
    config = small_config(experiment, task, tokenizer.pad_token_id)
    try:
        for key, value in (_tokens(config, tokenizer) | dict(task.config_changes)).items():
            setattr(config, key, value)
        # Once through its values, so that they are checked before anything is built.
        config = type(config).from_dict(config.to_dict())
        set_seed(experiment.experiment.seed)
        model: PreTrainedModel = task.auto_class.from_config(config)
        _read_a_text(model)
    except Exception as error:
        # Whatever an architecture raises of its own when a value does not suit it.
        raise _unshrinkable(experiment, config, error) from error
    if model.get_output_embeddings() is not None:
        _make_learnable(model, separate_output=model_type(experiment) in OUTPUT_IS_SEPARATE)
    return model


def small_config(experiment: Experiment, task: Task, padding: int = 0) -> PretrainedConfig:
    """Return the configuration of the checkpoint's folder, or of the architecture, in the sizes of the miniature.

    ``padding`` is the id of the padding token, which decides how many positions there must be.

    Raises:
        UserError: The architecture is not said, not known, not one for the task, or cannot be made small.
    """
    name, saved = model_type(experiment), folder_config(experiment)
    config = saved or AutoConfig.for_model(name, **USUAL.get(name, {}))
    task.check(config, None if saved is None else experiment.model.checkpoint)
    lengths = experiment.tokenizer
    read, written = (
        lengths.encoder_max_len,
        max(lengths.decoder_max_len, experiment.generation.max_length),
    )
    length = read + written if task.continues else max(read, written)
    try:
        # RoBERTa counts positions from behind the padding's id, BART from 2.
        shrink(config, experiment.rehearsal, length + max(2, padding + 1))
    except UserError:
        raise
    except Exception as error:
        raise _unshrinkable(experiment, config, error) from error
    return config


@torch.no_grad()
def _read_a_text(model: PreTrainedModel) -> None:
    """Let a model read two texts, which fails where sizes do not go together."""
    ids = torch.zeros(2, 8, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    was_training = model.training
    model.eval()(**inputs)
    model.train(was_training)


def _tokens(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return vocabulary and control tokens, with the one that a decoder begins with.

    That is the one it has in the architecture's default configuration; T5's says none, and begins with padding.
    """
    ids = {f"{role}_id": getattr(tokenizer, f"{role}_id") for role in ROLES}
    for name, like in (("cls_token_id", "bos_token_id"), ("sep_token_id", "eos_token_id")):
        if ids[name] is None and getattr(config, name, None) is not None:
            ids[name] = ids[like]
    own = {name: value for name, value in ids.items() if name == "pad_token_id" or hasattr(config, name)}
    changes = {"vocab_size": tokenizer.vocab_size, **own}
    if hasattr(config, "decoder_vocab_size"):
        changes["decoder_vocab_size"] = tokenizer.vocab_size
    if config.is_encoder_decoder:
        usual = AutoConfig.for_model(config.model_type)
        start = getattr(usual, "decoder_start_token_id", None)
        roles = [name for name in ids if start is not None and getattr(usual, name, None) == start]
        changes |= {
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "decoder_start_token_id": ids[roles[0] if roles else "pad_token_id"],
            "forced_eos_token_id": None,
            "forced_bos_token_id": None,
        }
    return changes


def _unshrinkable(experiment: Experiment, config: PretrainedConfig, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    inner = config.get_text_config().model_type
    is_named = folder_config(experiment) is None and inner != config.model_type and inner in CONFIG_MAPPING
    return UserError(
        f"a rehearsal cannot make '{config.model_type}' small: {reason}",
        where="model.architecture",
        expected="an architecture that says its width and its number of layers, such as bert, t5 or llama",
        hint=f"model.architecture={inner}" if is_named else "leave --rehearse out to train the model itself",
    )


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
    is_tied = output.weight is embedding.weight
    if separate_output or (not is_tied and output.weight.shape == embedding.weight.shape):
        # Not quite the same, or loading would take the two for one that is tied.
        output.weight = torch.nn.Parameter(embedding.weight * 1.01)
        model.config.tie_word_embeddings = False


def folder_config(experiment: Experiment) -> PretrainedConfig | None:
    """Return the configuration of a checkpoint that is a folder here, else None.

    Raises:
        UserError: It cannot be read.
    """
    folder = Path(experiment.model.checkpoint)
    if not (folder / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(folder)
    except BROKEN_CONFIG as error:
        raise UserError(
            f"config.json of '{folder}' cannot be read: {named(error, 200)}",
            where="model.checkpoint",
            hint="copy its config.json again, or take another checkpoint",
        ) from error


def _without(texts: Iterator[str], tokens: tuple[str, ...]) -> Iterator[str]:
    if not tokens:
        yield from texts
        return
    cut = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
    for text in texts:
        yield from cut.split(text)
