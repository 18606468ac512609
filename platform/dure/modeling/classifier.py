"""Loading an encoder with a classification head: its classes named, the new head trained whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dure.config.schema import Experiment, Profile
from dure.modeling.limits import check_complete, check_limits
from dure.modeling.loading import load_pretrained
from dure.modeling.lora import AdaptedModel, apply_lora
from dure.modeling.task import classification


def load_classifier(
    experiment: Experiment,
    profile: Profile,
    tokenizer: PreTrainedTokenizerBase,
    classes: Sequence[str],
    tell: Callable[[str], None],
    *,
    multi_label: bool = False,
) -> PreTrainedModel | AdaptedModel:
    """Load an encoder with a head over ``classes``, ready to train.

    Everything that starts at random is trained, under LoRA too: the head, and what else the checkpoint lacks.

    Args:
        experiment: What to load.
        profile: Decides precision and whether 4-bit loading is possible.
        tokenizer: What ``load_tokenizer`` returned.
        classes: Names in the order of their ids; saved in the configuration.
        tell: Gets one line for everything that is not done as the experiment says.
        multi_label: Whether a text may be of any number of classes; saved in the configuration too.

    Raises:
        UserError: As ``load_pretrained``; or the model cannot do what the experiment asks of it.
    """
    task = classification(classes, multi_label=multi_label)
    loaded = load_pretrained(task, experiment, profile, tokenizer, tell)
    model = loaded.model
    check_complete(experiment, loaded.untaught, model, tell)
    check_limits(experiment, model, tokenizer)
    if experiment.lora is None:
        return model
    heads = [name for name, module in model.named_children() if _is_head(model, module)]
    others = {name.rpartition(".")[0] for name in loaded.untaught if name.partition(".")[0] not in heads}
    whole = [*heads, *sorted(others)]
    return apply_lora(model, experiment.lora, task.adapted_class, loaded.new_row_ids, trained_whole=whole)


def classifier_modules(model: PreTrainedModel | PeftModel) -> dict[str, tuple[str, ...]]:
    """Return ``encoder`` and ``head`` of a classifier with the prefixes of their parameters' names."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    inside = next(f"{name}." if name else "" for name, module in model.named_modules() if module is plain)
    names: dict[bool, list[str]] = {True: [], False: []}
    for name, module in plain.named_children():
        if any(True for _ in module.parameters()):
            names[_is_head(plain, module)].append(f"{inside}{name}.")
    return {"encoder": tuple(names[False]), "head": tuple(names[True])}


def _is_head(model: PreTrainedModel, module: nn.Module) -> bool:
    """Whether a child of a classifier is trained weights beside the encoder."""
    return module is not model.base_model and any(True for _ in module.parameters())
