"""Every LoRA target must match a layer, and the embedding is one layer whatever it is called."""

from __future__ import annotations

import peft
import pytest
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from dure.config.schema import LoraConfig, RehearsalConfig
from dure.errors import UserError
from dure.modeling.lora import AdaptedClassifier, AdaptedDecoder, AdaptedSeq2Seq, apply_lora
from dure.modeling.lora_targets import checked_targets
from dure.modeling.shrinking import shrink
from tests.platform.modeling.tiny_models import TARGETS, build


def lora(*targets: str) -> LoraConfig:
    return LoraConfig(rank=2, alpha=4, targets=targets)


def tiny(kind: str) -> PretrainedConfig:
    return shrink(AutoConfig.for_model(kind), RehearsalConfig(hidden_size=32, num_layers=2), 50)


def test_a_target_without_a_layer_is_named_with_the_layers_that_it_may_mean() -> None:
    with pytest.raises(UserError) as caught:
        apply_lora(build("mt5", 50), lora("q", "wi", "wo"), AdaptedSeq2Seq, [])
    error = caught.value
    assert "'wi'" in error.problem
    assert error.where == "lora.targets"
    assert error.hint is not None
    assert "wi_0" in error.hint
    assert "wi_1" in error.hint
    assert error.expected is not None
    assert {"k", "lm_head", "o", "q", "shared", "v", "wi_0", "wi_1", "wo"} <= set(
        error.expected.removeprefix("any of ").split(", ")
    )


@pytest.mark.parametrize("target", ["roj", "q_pro", "self_attn", "layers", "model"])
def test_a_part_of_a_name_or_a_block_is_no_target(target: str) -> None:
    with pytest.raises(UserError, match=f"'{target}'"):
        apply_lora(build("bart", 50), lora("q_proj", target), AdaptedSeq2Seq, [])


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", ["shared", "embed_tokens"])
def test_encoder_and_decoder_read_one_adapted_embedding(kind: str, name: str) -> None:
    model = apply_lora(build(kind, 50), lora(name), AdaptedSeq2Seq, []).get_base_model()
    embedding = model.get_input_embeddings()
    assert model.get_encoder().embed_tokens is embedding
    assert model.get_decoder().embed_tokens is embedding
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2
    assert all(".lora_embedding_" in n or n.startswith("shared.lora_embedding_") for n in trained)


def test_a_full_name_selects_one_layer() -> None:
    target = "decoder.block.0.layer.0.SelfAttention.q"
    model = apply_lora(build("t5", 50), lora(target), AdaptedSeq2Seq, [])
    trained = {n.partition(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"base_model.model.{target}"}


@pytest.mark.parametrize(
    ("kind", "adapted"),
    [
        ("t5", AdaptedSeq2Seq), ("bart", AdaptedSeq2Seq), ("bert", AdaptedClassifier), ("roberta", AdaptedClassifier),
        ("distilbert", AdaptedClassifier), ("qwen3", AdaptedDecoder), ("gpt_neox", AdaptedDecoder),
    ],
)  # fmt: skip
def test_all_linear_is_what_peft_takes_for_it(kind: str, adapted: type) -> None:
    """The independent reference is peft's own ``all-linear``; modules that are trained whole are no part of either."""
    whole = ("classifier", "pre_classifier") if adapted is AdaptedClassifier else ()

    def model() -> PreTrainedModel:
        auto = {AdaptedSeq2Seq: AutoModelForSeq2SeqLM, AdaptedClassifier: AutoModelForSequenceClassification}
        return auto.get(adapted, AutoModelForCausalLM).from_config(tiny(kind))

    def adapters(of: nn.Module) -> set[str]:
        return {name.partition(".lora_A")[0] for name, _ in of.named_parameters() if ".lora_A" in name}

    ours = adapters(apply_lora(model(), lora("all-linear"), adapted, [], trained_whole=whole))
    settings = peft.LoraConfig(
        task_type=adapted.task_type, target_modules="all-linear", modules_to_save=list(whole) or None
    )
    theirs = adapters(peft.get_peft_model(model(), settings))
    assert ours == {name for name in theirs if not set(name.split(".")) & set(whole)}
    assert ours


def test_all_linear_leaves_out_a_layer_of_the_head_that_is_called_as_one_of_the_body() -> None:
    model = AutoModelForSequenceClassification.from_config(tiny("roberta"))
    targets = checked_targets(model, ["all-linear", "query"], ("classifier",))
    assert {"query", "key", "value"} <= {*targets}
    assert "dense" not in targets
    assert "roberta.encoder.layer.0.output.dense" in targets
    assert not any("classifier" in target for target in targets)
