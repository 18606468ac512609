"""Loading a model and its tokenizer: from the hub, from a folder, or as a miniature."""

from __future__ import annotations

import importlib.util
import pickle
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dure.config.schema import Experiment, ModelConfig, Profile, QuantizationConfig
from dure.errors import UserError, counted, said
from dure.modeling.folders import BROKEN_CONFIG, is_model_folder
from dure.modeling.hub import TOKEN_HINT, go_on_without_hub
from dure.modeling.limits import check_complete, check_limits, check_vocabulary, replaced_output
from dure.modeling.lora import AdaptedModel, apply_lora
from dure.modeling.precision import resolve, weights_dtype
from dure.modeling.rehearsal import build_miniature, train_tokenizer
from dure.modeling.replaced import bars_hidden
from dure.modeling.sentencepiece_vocab import find_sentencepiece_vocab, load_sentencepiece_vocab
from dure.modeling.task import HEADS, Task, starting_at_random
from dure.modeling.tokens import add_special_tokens, close_with_eos, resize_embeddings, state_real_tying
from dure.modeling.weights import check_finite


def load_tokenizer(
    experiment: Experiment, texts: Callable[[], Iterator[str]], *, closes_texts: bool = True
) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer, or train the rehearsal's, with the experiment's special tokens whole.

    ``texts`` gives all training text; it is only called for a rehearsal. Where ``closes_texts``, it ends every text:
    as a target wants it, and a prompt that is to be continued does not.

    Raises:
        UserError: There is no such checkpoint, or it cannot be reached.
    """
    if experiment.rehearsal.enabled:
        tokenizer = train_tokenizer(texts(), experiment)
    else:
        tokenizer = _checkpoint_tokenizer(experiment.model)
        if closes_texts:
            close_with_eos(tokenizer)
    add_special_tokens(tokenizer, experiment.tokenizer.all_special_tokens)
    return tokenizer


_LONGEST_REASON = 240
_OFTEN_LEFT = frozenset(("pooler", "position_ids", "inv_freq"))
"""Parts of a checkpoint that many a model does without."""

_structure_only: ContextVar[bool] = ContextVar("structure_only", default=False)


@contextmanager
def structure_only() -> Iterator[None]:
    """Let models be built by the configuration of their checkpoint alone, on the meta device, inside a ``with``."""
    before = _structure_only.set(True)
    try:
        yield
    finally:
        _structure_only.reset(before)


def load_model(
    task: Task,
    experiment: Experiment,
    profile: Profile,
    tokenizer: PreTrainedTokenizerBase,
    notify: Callable[[str], None],
) -> PreTrainedModel | AdaptedModel:
    """Load a model ready to train: new tokens have rows, adapters are in place, and it generates as the experiment says.

    Of a classifier everything that starts at random is trained, under LoRA too: the head, and what else the checkpoint
    lacks. Everything is on the CPU, but 4-bit weights on a CUDA profile, which are quantised on the GPU at once.
    ``notify`` gets one line for everything that is not done as the experiment says.

    Raises:
        UserError: The checkpoint cannot be found, reached or read; it is no model for the task, or cannot do what is
            asked of it; the precision is impossible for it; a LoRA target matches no layer.
    """
    model, new_row_ids, untaught = _pretrained(task, experiment, profile, tokenizer, notify)
    check_complete(experiment, untaught, model, notify)
    check_limits(experiment, model, tokenizer)
    if model.can_generate():
        set_generation(model, experiment, tokenizer)
    if experiment.lora is None:
        return model
    whole = starting_at_random(model, untaught) if task.has_head else ()
    return apply_lora(model, experiment.lora, task.adapted_class, new_row_ids, trained_whole=whole)


def set_generation(
    model: PreTrainedModel, experiment: Experiment, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Replace the generation settings of a model by those of an experiment, whole.

    What a checkpoint brings would change predictions (``do_sample``, forced tokens, penalties), beat the experiment's
    lengths (``max_new_tokens``), or be refused when the model is saved (``temperature`` without sampling).

    A text ends where the tokenizer ends a target, and begins as in training: with the configuration's first token.
    """
    said = experiment.generation
    with_beams = {"length_penalty": said.length_penalty, "early_stopping": True} if said.num_beams > 1 else {}
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=said.num_beams,
        max_length=said.max_length,
        min_length=said.min_length,
        no_repeat_ngram_size=said.no_repeat_ngram_size,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        **with_beams,
    )


def _pretrained(
    task: Task,
    experiment: Experiment,
    profile: Profile,
    tokenizer: PreTrainedTokenizerBase,
    notify: Callable[[str], None],
) -> tuple[PreTrainedModel, list[int], list[str]]:
    """Load the plain model of an experiment.

    Returns:
        The model with a row for every token, the rows that must be learned, and the names of weights that the checkpoint
        lacks, so that they start at random.
    """
    settings = experiment.model
    if settings.use_unsloth:
        notify(f"use_unsloth: this {task.kind} is not loaded by Unsloth; dure's own path is used")
    if experiment.rehearsal.enabled:
        new_tokens = list(experiment.tokenizer.all_special_tokens)
        miniature = build_miniature(experiment, tokenizer, task)
        with tempfile.TemporaryDirectory() as folder:
            # Through a folder, so that a rehearsal takes the very path of a checkpoint, 4-bit loading included.
            _save_everywhere(miniature, Path(folder))
            # Its configuration too: mT5's says in memory that nothing is tied, and encoder and decoder would begin
            # with random embeddings of their own.
            config = AutoConfig.from_pretrained(folder)
            model, untaught = _load(task, experiment, profile, folder, config, notify)
    else:
        known = _checkpoint_tokenizer(settings).get_vocab()
        new_tokens = [token for token in experiment.tokenizer.all_special_tokens if token not in known]
        config = _checkpoint_config(settings, task)
        model, untaught = _load(task, experiment, profile, settings.checkpoint, config, notify)
    model.name_or_path = settings.checkpoint
    check_vocabulary(experiment, model, tokenizer)
    if (
        model.config.pad_token_id is None and not model.config.is_encoder_decoder
    ):  # decoders are told where a text ends by it, also below a head
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, resize_embeddings(model, tokenizer, new_tokens), untaught


def _save_everywhere(model: PreTrainedModel, folder: Path) -> None:
    """Save a plain model on whichever worker this is; ``save_pretrained`` does so on the first one only."""
    model.config.save_pretrained(folder)
    once = {tensor.data_ptr(): name for name, tensor in reversed(model.state_dict().items())}
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in once.values()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@bars_hidden()
def _load(
    task: Task,
    experiment: Experiment,
    profile: Profile,
    source: str,
    config: PretrainedConfig,
    notify: Callable[[str], None],
) -> tuple[PreTrainedModel, list[str]]:
    """Return the model, and the names of the weights that the checkpoint lacks."""
    precision = resolve(experiment.training.precision, profile, config.model_type, notify)
    frozen = experiment.lora is not None
    dtype = weights_dtype(precision, frozen=frozen)
    # With settings of its own the loader does not read the checkpoint's, which may even be broken.
    options: dict[str, Any] = {"config": config, "dtype": dtype, "generation_config": GenerationConfig()}
    if source == experiment.model.checkpoint:
        options["revision"] = experiment.model.revision or "main"
    if _structure_only.get() and source == experiment.model.checkpoint:
        with torch.device("meta"):
            empty: PreTrainedModel = task.auto_class.from_config(config)
        state_real_tying(empty)
        return empty.to(dtype), []
    quantization = experiment.model.quantization
    if quantization is not None:
        if profile.quantization and importlib.util.find_spec("bitsandbytes"):
            options["quantization_config"] = _bitsandbytes(
                quantization, dtype, HEADS if task.has_head else ()
            )
            # The structure is looked at where the machine may not have the profile's device.
            on_cpu = profile.device == "cpu" or _structure_only.get()
            options["device_map"] = {"": "cpu" if on_cpu else torch.cuda.current_device()}
        else:
            notify(f"no 4-bit weights on {profile.name}: LoRA on {precision} weights instead")
    # Weights of another size are missing ones: the head of other classes is replaced and told, all others are refused.
    options["ignore_mismatched_sizes"] = True
    try:
        model: PreTrainedModel
        model, report = task.auto_class.from_pretrained(source, output_loading_info=True, **options)
    except (
        OSError,
        ValueError,
        ImportError,
        AssertionError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        raise _unloadable(experiment.model, error) from error
    check_finite(model.state_dict(), f"model.checkpoint ({experiment.model.checkpoint})")
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    _tell_left_out(model, source, report["unexpected_keys"], notify)
    missing = mismatched.union(report["missing_keys"]) & parameters
    keep_4bit_trainable(model)
    state_real_tying(model)
    return model, sorted(missing | replaced_output(model, source, options.get("revision", "main")))


def _tell_left_out(
    model: PreTrainedModel, source: str, unexpected: Collection[str], notify: Callable[[str], None]
) -> None:
    """Tell which weights of a checkpoint's files the model has no place for, but those that often are left."""
    base = f"{model.base_model_prefix}."
    left = sorted(
        name for name in unexpected if name.startswith(base) and _OFTEN_LEFT.isdisjoint(name.split("."))
    )
    if left:
        notify(
            f"{source}: its config.json has no place for {counted(len(left), 'weight')} of its files, which are left out: "
            f"{', '.join(left[:3])}{' …' if len(left) > 3 else ''}"
        )


def _bitsandbytes(
    quantization: QuantizationConfig, dtype: torch.dtype, in_full: Sequence[str]
) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=dtype,
        # transformers spares the output layer of a language model when it is not told what to spare.
        llm_int8_skip_modules=list(in_full) or None,
    )


def keep_4bit_trainable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first evaluation.

    On CPUs with AVX512-BF16 it packs them for inference in place, rounding their scales; no gradient passes
    through packed weights, so training after an evaluation would leave most adapters untouched.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _checkpoint_tokenizer(settings: ModelConfig) -> PreTrainedTokenizerBase:
    _check_folder(settings)
    revision = settings.revision or "main"
    try:
        folder = find_sentencepiece_vocab(settings.checkpoint, revision)
        if folder is not None:
            return load_sentencepiece_vocab(folder)
        return AutoTokenizer.from_pretrained(settings.checkpoint, revision=revision)
    except BROKEN_CONFIG as error:
        raise _unloadable(settings, error) from error


def _checkpoint_config(settings: ModelConfig, task: Task) -> PretrainedConfig:
    _check_folder(settings)
    try:
        config = AutoConfig.from_pretrained(
            settings.checkpoint, revision=settings.revision or "main", **task.config_changes
        )
    except BROKEN_CONFIG as error:
        raise _unloadable(settings, error) from error
    check_plain(config, settings)
    # What a forward pass returns is the trainer's affair.
    config.return_dict, config.output_attentions, config.output_hidden_states = True, False, False
    task.check(config, settings.checkpoint)
    return config


def check_plain(config: PretrainedConfig, settings: ModelConfig) -> None:
    """Refuse a checkpoint whose weights are packed, where the experiment does not pack weights itself.

    Raises:
        UserError: They are.
    """
    if settings.quantization is None and getattr(config, "quantization_config", None):
        raise UserError(
            "its weights are packed in few bits, which cannot be trained as they are",
            where=f"model.checkpoint={settings.checkpoint}",
            expected="a checkpoint of plain weights",
            hint="take the one that it was made of; a model.quantization section packs its weights for LoRA",
        )


def _check_folder(settings: ModelConfig) -> None:
    """Raise UserError when the checkpoint is meant as a folder and is none; look whether the hub is there for others."""
    if not is_model_folder(settings.checkpoint):
        go_on_without_hub()


def _unloadable(settings: ModelConfig, error: Exception) -> UserError:
    reason = said(error, _LONGEST_REASON) or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        return UserError(
            "its weights are no plain tensors, and code might run when they are opened",
            where=f"model.checkpoint={settings.checkpoint}",
            expected="model.safetensors, or a pytorch_model.bin of tensors",
            hint="save it with save_pretrained where it is trusted",
        )
    if Path(settings.checkpoint).is_dir():
        return UserError(
            f"folder '{settings.checkpoint}' cannot be loaded: {reason}",
            where="model.checkpoint",
            hint="copy the folder again, whole, or take another checkpoint",
        )
    return UserError(
        f"'{settings.checkpoint}' cannot be loaded from the model hub: {reason}",
        where="model.checkpoint",
        hint=f"is this machine offline? Give model.checkpoint=FOLDER of a saved copy, or try --rehearse; {TOKEN_HINT}",
    )
