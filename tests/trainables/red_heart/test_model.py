"""The model: sizes, names, padding, saving, checkpointing."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import AutoModel

from trainables.red_heart.model import PRESETS, RedHeartConfig, RedHeartModel
from trainables.red_heart.tasks import TASKS

# Parameters in millions; how they are divided is said beside PRESETS.
SIZES = {"730m": 730, "800m": 800, "320m": 320}


def counted(preset: str) -> Counter[str]:
    with torch.device("meta"):
        model = RedHeartModel(RedHeartConfig(**PRESETS[preset]))
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[name.partition(".")[0]] += parameter.numel()
    return counts


@pytest.fixture
def model() -> RedHeartModel:
    torch.manual_seed(1)
    return RedHeartModel(RedHeartConfig(**PRESETS["tiny"])).eval()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(1, 2000, (3, 9), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("preset", SIZES)
def test_a_preset_has_the_parameters_of_its_name_to_one_percent(preset) -> None:
    counts = counted(preset)
    assert set(counts) == {"backbone", "analyzers", "heads"}
    assert counts.total() == pytest.approx(SIZES[preset] * 1e6, rel=0.01)


def test_the_730m_has_the_sizes_that_are_asked_for() -> None:
    config = RedHeartConfig(**PRESETS["730m"])
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (1280, 18, 20)
    shares = {part: round(count / 1e6) for part, count in counted("730m").items()}
    assert shares == {"backbone": 513, "analyzers": 210, "heads": 7}
    assert config.task_sizes == {"emotion": 7, "bentham": 10, "regret": 1, "surd": 4}


def test_padding_changes_nothing(model, ids) -> None:
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    alone = model(ids[1:2, :5]).logits
    torch.testing.assert_close(model(ids, mask).logits[1:2], alone, atol=1e-5, rtol=1e-5)


def test_the_order_of_words_changes_the_output(model, ids) -> None:
    assert not torch.allclose(model(ids).logits, model(ids.flip(1)).logits, atol=1e-4)


def test_outputs_by_task_are_the_parts_of_the_logits(model, ids) -> None:
    outputs = model(ids)
    torch.testing.assert_close(torch.cat([outputs[task] for task in TASKS], dim=1), outputs.logits)


def test_a_saved_model_says_the_same_when_it_is_loaded(model, ids, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    for loader in (RedHeartModel, AutoModel):
        loaded = loader.from_pretrained(tmp_path)
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-6, rtol=1e-5)


def test_gradients_are_the_same_with_checkpointing_and_reach_every_parameter(model, ids) -> None:
    model.train()
    model(ids).logits.sum().backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model(ids).logits.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], msg=name)


def test_it_computes_in_bf16(model, ids) -> None:
    exact = model(ids).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(ids).logits.float(), exact, atol=0.1, rtol=0.1)
    assert model.to(torch.bfloat16)(ids).logits.dtype == torch.bfloat16
