"""What a model can do at most, compared with what an experiment asks of it, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from dure.config.schema import Experiment
from dure.errors import UserError

POSITION_NAMES = ("position_embeddings", "embed_positions", "wpe")
"""What transformers calls a table of absolute positions. Models with relative or rotary ones have none."""


def check_limits(experiment: Experiment, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a model can do what an experiment asks of it.

    The plain model may be on the meta device; its tokenizer has the special tokens.

    Raises:
        UserError: Inputs, targets or generated texts may be longer than its positions, there are more beams than
            tokens, or a token is missing without which it cannot pad, begin or end a text: all of them at once.
    """
    found = [*_lengths(experiment, model), *_tokens(experiment, model, tokenizer)]
    if len(found) == 1:
        raise found[0]
    if found:
        listed = "\n".join(str(each) for each in found)
        raise UserError(
            f"the model cannot do {len(found)} things that the experiment asks for\n{listed}",
            where=f"model.checkpoint={experiment.model.checkpoint}",
        )


def check_vocabulary(
    experiment: Experiment, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Check that a checkpoint's model, before it gets new rows, has one for every token of its vocabulary.

    Added tokens may lack a row, which they get.

    Raises:
        UserError: The tokenizer is that of another model: its tokens would be read by rows that nobody trained.
    """
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.vocab_size > rows:
        raise UserError(
            f"its tokenizer has a vocabulary of {tokenizer.vocab_size:,} tokens, and its model rows for {rows:,}",
            where=f"model.checkpoint={experiment.model.checkpoint}",
            expected="the tokenizer that the model was trained with",
            hint="copy the tokenizer's files of the original checkpoint into the folder",
        )


def num_positions(model: nn.Module, part: str = "") -> int | None:
    """Return the tokens that a model has positions for; None where their number is not limited.

    Counted in the tables themselves, since some reserve rows: RoBERTa and its kin those up to the padding's, BART two
    that its configuration does not count.

    ``part`` is ``encoder`` or ``decoder`` of a model that has both.
    """
    counts = []
    for name, module in model.named_modules():
        steps = name.split(".")
        if steps[-1] not in POSITION_NAMES or not isinstance(module, nn.Embedding):
            continue
        if part and part not in steps:
            continue
        reserved = getattr(module, "offset", 0) or 0
        if module.padding_idx is not None:
            reserved = module.padding_idx + 1
        counts.append(module.num_embeddings - reserved)
    return min(counts, default=None)


def _lengths(experiment: Experiment, model: PreTrainedModel) -> Iterator[UserError]:
    lengths, name = experiment.tokenizer, experiment.model.checkpoint
    is_seq2seq = bool(model.config.is_encoder_decoder)
    asked = [("encoder" if is_seq2seq else "", "tokenizer.encoder_max_len", lengths.encoder_max_len, "reads")]
    written = {
        "tokenizer.decoder_max_len": lengths.decoder_max_len,
        "generation.max_length": experiment.generation.max_length,
    }
    if is_seq2seq:
        asked += [("decoder", key, tokens, "writes") for key, tokens in written.items()]
    elif model.can_generate():
        yield from _behind_prompts(experiment, num_positions(model), written)
        return
    for part, key, tokens, does in asked:
        limit = num_positions(model, part)
        if limit is not None and tokens > limit:
            yield UserError(
                f"{tokens} tokens are more than {name} {does}",
                where=key,
                expected=f"at most {limit}",
                hint=f"{key}={limit}",
            )


def _behind_prompts(
    experiment: Experiment, limit: int | None, written: dict[str, int]
) -> Iterator[UserError]:
    """Check the positions of a model that writes behind what it reads: prompts and answers need them together."""
    read, longest = experiment.tokenizer.encoder_max_len, max(written, key=lambda key: written[key])
    beside = written[longest]
    if limit is not None and read + beside > limit:
        fits = limit > beside
        yield UserError(
            f"prompts of {read} tokens with {longest}={beside} behind them need {read + beside} positions, and "
            f"{experiment.model.checkpoint} has {limit}",
            where="tokenizer.encoder_max_len",
            expected=f"at most {limit} together",
            hint=f"tokenizer.encoder_max_len={limit - beside}" if fits else f"{longest}={-(-limit // 4)}",
        )


def _tokens(
    experiment: Experiment, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Iterator[UserError]:
    rows = model.get_input_embeddings().num_embeddings
    needed: list[tuple[str, int | None]] = [("tokenizer's padding token", tokenizer.pad_token_id)]
    if model.config.is_encoder_decoder:
        needed += [
            ("tokenizer's end-of-sequence token", tokenizer.eos_token_id),
            ("configuration's pad_token_id", model.config.pad_token_id),
            ("configuration's decoder_start_token_id", getattr(model.config, "decoder_start_token_id", None)),
        ]
        output = model.get_output_embeddings()
        vocabulary = rows if output is None else output.weight.shape[0]
        if experiment.generation.num_beams > vocabulary:
            yield UserError(
                f"{experiment.generation.num_beams} beams are more than the {vocabulary} tokens of the vocabulary",
                where="generation.num_beams",
                expected=f"at most {vocabulary}",
            )
    for what, token in needed:
        if token is None:
            problem = f"the {what} is missing"
        elif not 0 <= token < rows:
            problem = f"the {what} is {token}, and the model has {rows} tokens"
        else:
            continue
        yield UserError(
            problem,
            where=f"model.checkpoint={experiment.model.checkpoint}",
            expected=f"one from 0 to {rows - 1}",
            hint="correct config.json or tokenizer_config.json in a saved copy of the checkpoint",
        )


def check_complete(
    experiment: Experiment, untaught: Sequence[str], model: PreTrainedModel, notify: Callable[[str], None]
) -> None:
    """Check that a checkpoint lacks no weights but those of a head, or of the pooler before it.

    ``untaught`` are the weights that start at random.

    Raises:
        UserError: Others are missing, so that the model would write or classify at random.
    """
    base = f"{model.base_model_prefix}."
    is_whole = model.can_generate()
    lost = [
        name for name in untaught if is_whole or (name.startswith(base) and "pooler" not in name.split("."))
    ]
    if lost:
        raise UserError(
            f"{experiment.model.checkpoint} lacks {len(lost)} weights, which would start at random: "
            f"{', '.join(lost[:3])}{' …' if len(lost) > 3 else ''}",
            where="model.checkpoint",
            expected="a checkpoint that was saved whole, of this very architecture",
        )
    if untaught:
        notify(
            f"{experiment.model.checkpoint} lacks {len(untaught)} weights, which start at random: "
            f"{', '.join(untaught[:3])}{' …' if len(untaught) > 3 else ''}"
        )


def replaced_output(model: PreTrainedModel, source: str, revision: str) -> set[str]:
    """Return the output matrix when a checkpoint that says it has one of its own lacks it, and the input's took its place.

    That is how T5 and mT5 load such a file, whatever their configuration says.
    """
    said, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    output = model.get_output_embeddings()
    if said.get("tie_word_embeddings") is not False or output is None or not model.config.tie_word_embeddings:
        return set()
    names = {f"{name}.weight" for name, module in model.named_modules() if module is output}
    saved = _saved_names(source, revision)
    return set() if saved is None else names - saved


def _saved_names(source: str, revision: str) -> set[str] | None:
    """Return the names of the tensors in a checkpoint's safetensors files; None when it has none."""
    for name in (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME):
        file = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if file is not None and name == SAFE_WEIGHTS_INDEX_NAME:
            return set(json.loads(Path(file).read_text(encoding="utf-8"))["weight_map"])
        if file is not None:
            with safe_open(file, "pt") as weights:
                return set(weights.keys())
    return None
