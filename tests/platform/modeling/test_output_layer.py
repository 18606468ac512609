"""The output layer in chunks gives the loss and the gradients of the whole, and never makes the whole logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from peft import LoraConfig, TaskType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from dure.data.collating import padded
from dure.modeling import output_layer
from dure.modeling.lora import AdaptedSeq2Seq
from dure.modeling.objectives import IGNORED, TokenCrossEntropy
from dure.modeling.output_layer import Projected, deferred
from dure.modeling.r_drop import r_drop_loss
from dure.modeling.rows import train_rows

from .tiny_models import build

VOCABULARY = 320


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute five tokens at a time, so that small batches have several chunks."""
    monkeypatch.setattr(output_layer, "_tokens_at_once", lambda logits: 5)


def bart() -> PreTrainedModel:
    """BART, whose output layer shares its weights, with a bias that it adds afterwards."""
    model = build("bart", VOCABULARY)
    model.final_logits_bias = torch.randn(1, VOCABULARY)
    return model


def mt5() -> PreTrainedModel:
    """An mT5, whose output layer has weights of its own."""
    model = build("mt5", VOCABULARY)
    model.lm_head.weight.data.mul_(0.1)
    return model


def adapted() -> Any:
    """An mT5 with trained rows, which a hook corrects, and an adapter on its output layer."""
    model = mt5()
    config = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=4, target_modules=["q", "lm_head"])
    made = AdaptedSeq2Seq(model, config)
    train_rows(model, [3, 7])
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def with_new_rows() -> PreTrainedModel:
    """A frozen T5 that learns rows of its embedding alone, which is its output layer too."""
    model = build("t5", VOCABULARY)
    model.requires_grad_(False)
    train_rows(model, [3, 7, 300])
    return model


def gemma() -> PreTrainedModel:
    """A decoder-only model with a soft cap on its logits."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, head_dim=8,
            num_attention_heads=4, num_key_value_heads=4, final_logit_softcapping=0.5, pad_token_id=0,
        )
    )  # fmt: skip


MODELS: dict[str, Callable[[], Any]] = {
    "t5": lambda: build("t5", VOCABULARY),
    "mt5": mt5,
    "bart": bart,
    "adapted": adapted,
    "with_new_rows": with_new_rows,
    "gemma": gemma,
}


def batch_for(model: Any, rows: int = 4) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return what the model reads, and labels of several lengths."""
    torch.manual_seed(1)
    inputs = torch.randint(3, VOCABULARY, (rows, 9))
    labels = padded(
        [torch.randint(3, VOCABULARY, (length,)).tolist() for length in (9, 4, 7, 2)][:rows], IGNORED
    )
    given = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = labels.clamp(min=0)
    return given, labels


def loss_and_gradients(
    model: Any, chunked: bool, objective: TokenCrossEntropy, r_drop: float
) -> list[torch.Tensor]:
    given, labels = batch_for(model)
    if r_drop:
        given = {name: torch.cat([value, (value + 1) % VOCABULARY]) for name, value in given.items()}
    model.zero_grad()
    model.eval()
    if chunked:
        with deferred(model):
            outputs = model(**given)
    else:
        outputs = model(**given)
    loss = r_drop_loss(objective, r_drop, outputs, labels) if r_drop else objective(outputs, labels)
    (3 * loss).backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("r_drop", [0.0, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradients_are_those_of_the_whole_logits(kind: str, smoothing: float, r_drop: float) -> None:
    model, objective = MODELS[kind](), TokenCrossEntropy(smoothing)
    expected = loss_and_gradients(model, False, objective, r_drop)
    found = loss_and_gradients(model, True, objective, r_drop)
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * max(1.0, float(other.abs().max())), rtol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_losses_of_rows_are_those_of_the_whole_logits(kind: str) -> None:
    model, objective = MODELS[kind]().eval(), TokenCrossEntropy(0.1)
    given, labels = batch_for(model)
    with torch.no_grad():
        expected = objective.row_losses(model(**given)["logits"], labels)
        with deferred(model):
            outputs = model(**given)
        found = objective.row_losses(outputs["logits"].float(), labels)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_in_bf16_loss_and_gradients_are_those_of_the_whole_logits_in_bf16() -> None:
    model, objective = bart(), TokenCrossEntropy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = loss_and_gradients(model, False, objective, 0.0)
        found = loss_and_gradients(model, True, objective, 0.0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_leaves(made) if isinstance(each, torch.Tensor)]
        self.numbers = max(self.numbers, *sizes, 0)
        return made


@pytest.mark.parametrize("kind", ["bart", "adapted", "gemma"])
def test_the_whole_logits_never_exist(kind: str) -> None:
    model = MODELS[kind]()
    given, labels = batch_for(model)
    for is_whole in (True, False):
        with Largest() as largest, deferred(model):
            outputs = model(**given)
        with largest:
            loss = (
                TokenCrossEntropy()({"logits": outputs["logits"].whole()}, labels)
                if is_whole
                else TokenCrossEntropy()(outputs, labels)
            )
            loss.backward()
        whole, weights = (
            labels.numel() * VOCABULARY,
            VOCABULARY * model.get_output_embeddings().weight.shape[1],
        )
        assert (largest.numbers >= whole) == is_whole or weights >= whole


def test_accelerate_lets_them_be_where_it_computes_in_bf16(monkeypatch) -> None:
    # It puts this around the forward pass of every model that trains in bf16 or fp16.
    monkeypatch.setattr(Projected, "whole", lambda self: pytest.fail("the whole logits are computed"))
    model = bart()
    given, labels = batch_for(model)
    model.forward = convert_outputs_to_fp32(torch.autocast("cpu", torch.bfloat16)(model.forward))
    with deferred(model):
        outputs = model(**given)
    TokenCrossEntropy()(outputs, labels).backward()
    assert model.get_input_embeddings().weight.grad is not None


def test_what_is_not_noted_is_done_to_the_whole_logits_and_the_model_is_as_before() -> None:
    model = gemma().eval()
    given, _ = batch_for(model)
    expected = model(**given)["logits"]
    with deferred(model):
        logits = model(**given)["logits"]
        assert torch.equal(logits.argmax(dim=-1), expected.argmax(dim=-1))
    torch.testing.assert_close(torch.softmax(logits, dim=-1), expected.softmax(dim=-1))
    torch.testing.assert_close(logits + torch.ones(4, 9, 1), expected + 1)
    torch.testing.assert_close(model(**given)["logits"], expected)
    assert "forward" not in vars(model.get_output_embeddings()), "it is the method of the class again"
