"""What is known of the model of an experiment without training it, and mostly without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dure.config.schema import LoraConfig, ModelConfig, Profile
from dure.errors import UserError, named
from dure.family import Family
from dure.preflight.checks import CannotTellError, Note

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Shape = tuple[int, ...]
_HERE = Profile(name="cpu", device="cpu", quantization=False)
"""Where a model is built to be counted."""
_FULL = 4
"""Bytes of a number in fp32."""


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a model."""

    num_parameters: int
    """All parameters, shared ones once."""
    num_trained: int
    """Those that are trained."""
    state: Mapping[str, Shape]
    """Name → shape of its whole state dict; empty when only its configuration is known."""
    trained: Mapping[str, Shape]
    """Name → shape of what the run saves as its weights; empty too then."""
    tied: Mapping[str, frozenset[str]]
    """Names of the state dict that stand for one tensor under several names, by each of them."""


@contextmanager
def offline(loaded: ModelConfig | None = None) -> Iterator[None]:
    """Keep the libraries from asking the model hub inside a ``with``; what is in its cache is found.

    Args:
        loaded: What the body loads.

    Raises:
        CannotTellError: That is on the hub and not on this machine.
    """
    from huggingface_hub import constants

    from dure.modeling.hub import is_hub_name

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except UserError as error:
        name = None if loaded is None else loaded.checkpoint
        if name is None or not is_hub_name(name) or Path(name).exists():
            raise
        if not isinstance(error.__cause__, OSError):
            raise
        raise CannotTellError(
            f"'{name}' is not on this machine; nothing is downloaded to validate",
            "model.checkpoint=FOLDER of a saved copy, or --rehearse",
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = before


def model_facts(note: Note, family: Family, tokenizer: PreTrainedTokenizerBase | None) -> ModelFacts:
    """Count the parameters of the model of an experiment.

    A rehearsal's miniature is built; a checkpoint of this machine is loaded, or counted by its configuration where
    it would take more than half of the free memory; a model from random weights is built on the meta device.

    Raises:
        UserError: The model is not of the family, its checkpoint is wrong, or it cannot do what is asked of it.
        CannotTellError: The checkpoint is not on this machine.
    """
    import torch

    from dure.modeling.limits import check_limits, check_vocabulary

    experiment = family.experiment
    family.register_models()
    with offline():
        config = None if experiment.rehearsal.enabled else _known_config(family)
        if config is not None:
            empty = _without_weights(config, experiment.model)
            facts = _facts_of_config(empty, experiment.lora)
            how = f"counted by the configuration of {experiment.model.checkpoint}"
            if tokenizer is not None and _FULL * facts.num_parameters < psutil.virtual_memory().available / 2:
                facts = _facts_of(family.load_model(tokenizer, _HERE))
                how = f"loaded from {experiment.model.checkpoint}"
            elif tokenizer is not None:
                check_vocabulary(experiment, empty, tokenizer)
                check_limits(experiment, empty, tokenizer)
        elif tokenizer is None:
            raise CannotTellError("it needs the tokenizer, which comes with the encoded rows: see encoding")
        else:
            device = torch.device("cpu" if experiment.rehearsal.enabled else "meta")
            with offline(experiment.model), device:
                facts = _facts_of(family.load_model(tokenizer, _HERE))
            how = "the rehearsal's miniature" if experiment.rehearsal.enabled else "from random weights"
    trained = (
        "all trained"
        if facts.num_trained == facts.num_parameters
        else f"{facts.num_trained:,} of them trained"
    )
    note.found = f"{facts.num_parameters:,} parameters, {trained} ({how})"
    return facts


def require_limits(family: Family) -> None:
    """Check what a checkpoint is and can do, where it is on this machine, without loading its weights.

    Raises:
        UserError: As :func:`dure.modeling.limits.check_limits`; or it is no model for the family, its files of weights
            are not whole, its configuration or tokenizer cannot be read, or they do not belong together.
    """
    from dure.modeling.limits import check_limits, check_vocabulary

    with offline():
        config = _known_config(family)
    if config is not None:
        empty = _without_weights(config, family.experiment.model)
        tokenizer = family.load_tokenizer(lambda: iter(()))
        check_vocabulary(family.experiment, empty, tokenizer)
        check_limits(family.experiment, empty, tokenizer)


def _known_config(family: Family) -> PretrainedConfig | None:
    """Return the configuration of a checkpoint that is a folder, or in the cache of the hub."""
    from transformers import AutoConfig

    from dure.modeling.folders import BROKEN_CONFIG, check_weight_files, is_model_folder
    from dure.modeling.loading import check_plain

    settings, task = family.experiment.model, family.task()
    is_folder = is_model_folder(settings.checkpoint)
    try:
        config = AutoConfig.from_pretrained(settings.checkpoint, revision=settings.revision or "main")
    except BROKEN_CONFIG as error:
        if Path(settings.checkpoint).is_dir():
            raise _broken_config(settings, error) from None
        config = None
    if config is not None and task is not None:
        task.check(config, settings.checkpoint)
        check_plain(config, settings)
    if is_folder:
        check_weight_files(Path(settings.checkpoint))
    return config


def _broken_config(settings: ModelConfig, error: Exception) -> UserError:
    return UserError(
        f"its configuration cannot be read: {named(error, 200)}",
        where=f"model.checkpoint={settings.checkpoint}",
        expected="a folder saved with save_pretrained",
        hint="copy its config.json again, or take another checkpoint",
    )


def _without_weights(config: PretrainedConfig, settings: ModelConfig) -> PreTrainedModel:
    """Build the model that a configuration says, of the class that wrote it where transformers knows that."""
    import torch
    import transformers

    known = [getattr(transformers, name, None) for name in config.architectures or ()]
    build = next((each for each in known if each is not None), transformers.AutoModel.from_config)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = build(config)
    except ValueError as error:
        raise _broken_config(settings, error) from None
    return model


def _facts_of_config(model: PreTrainedModel, lora: LoraConfig | None) -> ModelFacts:
    """Count a model without adapters, and add those that it would get."""
    from torch import nn

    from dure.modeling.lora_targets import checked_targets, matches

    count = sum(parameter.numel() for parameter in model.parameters())
    if lora is None:
        return ModelFacts(count, count, {}, {}, {})
    targets = checked_targets(model, lora.targets)
    matched = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and any(matches(name, target) for target in targets)
    ]
    adapters = sum(lora.rank * (layer.in_features + layer.out_features) for layer in matched)
    return ModelFacts(count + adapters, adapters, {}, {}, {})


def _facts_of(model: nn.Module) -> ModelFacts:
    from dure.modeling.weights import tied_parameters, trained_names
    from dure.runs.forecast import num_parameters

    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    trained = {name: state[name] for name in trained_names(model)}
    return ModelFacts(*num_parameters(model), state, trained, tied_parameters(model))
