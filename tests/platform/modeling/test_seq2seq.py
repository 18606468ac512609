"""T5, mT5 and BART, fully trained, with LoRA and with QLoRA: load, step, save, load, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from dure.config.schema import Experiment
from dure.modeling.export import export
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.lora import AdaptedModel
from dure.modeling.task import SEQ2SEQ
from tests.platform.modeling.tiny_models import (
    CPU,
    PADDED_BY,
    POSITIONS,
    SPECIAL,
    TARGETS,
    TEXTS,
    experiment_of,
)

LORA = {"rank": 4, "alpha": 8}
CASES = [
    pytest.param(kind, way, targets, id=f"{kind}-{way}-{'-'.join(extra) or 'layers'}")
    for kind in TARGETS
    for way, extra in (
        ("full", ()),
        ("lora", ()),
        ("qlora", ()),
        ("lora", ("lm_head",)),
        ("lora", ("shared",)),
        ("qlora", ("lm_head", "shared")),
    )
    for targets in [TARGETS[kind] + extra]
]


@dataclass
class Loaded:
    experiment: Experiment
    model: PreTrainedModel | AdaptedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def new_ids(self) -> list[int]:
        return [int(i) for i in self.tokenizer.convert_tokens_to_ids(list(SPECIAL))]

    def batch(self) -> dict[str, torch.Tensor]:
        texts = [f"#Person1#: {TEXTS[0]}", f"#Person2#은 #Email#: {TEXTS[1]}"]
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt")
        labels = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
        return {**encoded, "labels": labels}

    @torch.no_grad()
    def logits(self, model: PreTrainedModel | None = None) -> torch.Tensor:
        return (model or self.model).eval()(**self.batch()).logits

    def step(self, steps: int = 1) -> None:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.02)
        self.model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            self.model(**self.batch()).loss.backward()
            optimizer.step()


def load(kind: str, way: str, targets: tuple[str, ...], checkpoints: dict[str, Path]) -> Loaded:
    model = {"checkpoint": str(checkpoints[kind])}
    if way == "qlora":
        model |= {"quantization": {"type": "nf4", "double": True}}
    lora = None if way == "full" else LORA | {"targets": targets}
    experiment = experiment_of(kind, checkpoints[kind], model=model, lora=lora)
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    told: list[str] = []
    loaded = load_model(SEQ2SEQ, experiment, CPU, tokenizer, told.append)
    assert told == []
    return Loaded(experiment, loaded, tokenizer)


@pytest.fixture
def loaded(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Loaded:
    return load(*request.param, checkpoints)


def each_way(test):
    return pytest.mark.parametrize(
        "loaded", [pytest.param(case.values, id=case.id) for case in CASES], indirect=True
    )(test)


def adapted_only(test):
    adapted = [pytest.param(case.values, id=case.id) for case in CASES if case.values[1] != "full"]
    return pytest.mark.parametrize("loaded", adapted, indirect=True)(test)


@adapted_only
def test_only_adapters_and_new_rows_can_be_trained(loaded: Loaded) -> None:
    trained = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    rows = {name for name in trained if "lora_rows" in name}
    assert len(rows) == (2 if loaded.experiment.name == "mt5" else 1)
    assert trained - rows
    assert all(".lora_A." in n or ".lora_B." in n or ".lora_embedding_" in n for n in trained - rows)


@each_way
def test_every_trained_parameter_moves_and_nothing_else(loaded: Loaded) -> None:
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    loaded.step(steps=2)  # At the first step B is zero, so A has no gradient yet.
    for name, parameter in loaded.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name


@adapted_only
def test_training_goes_on_after_an_evaluation(loaded: Loaded) -> None:
    loaded.logits()
    loaded.step()
    first_layer = next(p for name, p in loaded.model.named_parameters() if ".lora_B." in name)
    assert first_layer.grad is not None
    assert first_layer.grad.abs().max() > 0


@adapted_only
def test_a_checkpoint_gives_the_same_logits_and_holds_only_what_was_trained(
    loaded: Loaded, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    loaded.step(steps=2)
    expected = loaded.logits()
    loaded.model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    trained = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
    assert sum(tensor.numel() for tensor in saved.values()) == trained
    way = "qlora" if loaded.experiment.model.quantization else "lora"
    assert loaded.experiment.lora is not None
    fresh = load(loaded.experiment.name, way, loaded.experiment.lora.targets, checkpoints)
    assert not torch.allclose(fresh.logits(), expected, atol=1e-3)
    fresh.model.load_adapter(str(tmp_path), "default", is_trainable=True)
    torch.testing.assert_close(fresh.logits(), expected)


@each_way
def test_the_export_is_a_plain_model_with_the_same_logits(loaded: Loaded, tmp_path: Path) -> None:
    loaded.step(steps=2)
    expected = loaded.logits()
    export(loaded.model, loaded.tokenizer, tmp_path / "final_model")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "final_model")
    torch.testing.assert_close(loaded.logits(plain), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loaded.logits(), expected)  # the trained model is left as it was
    assert (
        plain.generation_config.max_length == POSITIONS
    )  # the experiment's, and not the 17 of the checkpoint
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final_model")
    text = f"#Person1#: {TEXTS[0]}"
    assert tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", TARGETS)
def test_an_export_can_be_trained_further_and_exported_again(
    kind: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    first = load(kind, "lora", (*TARGETS[kind], "lm_head"), checkpoints)
    first.step(steps=2)
    export(first.model, first.tokenizer, tmp_path / "first")
    second = load(kind, "lora", TARGETS[kind], {kind: tmp_path / "first"})
    torch.testing.assert_close(second.logits(), first.logits(), atol=1e-4, rtol=1e-4)
    assert not [n for n, _ in second.model.named_parameters() if "lora_rows" in n]
    second.step(steps=2)
    export(second.model, second.tokenizer, tmp_path / "second")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "second")
    torch.testing.assert_close(second.logits(plain), second.logits(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("way", ["lora", "qlora"])
def test_gradient_checkpointing_gives_the_same_gradients(
    kind: str, way: str, checkpoints: dict[str, Path]
) -> None:
    model = load(kind, way, (*TARGETS[kind], "shared"), checkpoints)
    model.model.config.dropout_rate = 0.0
    for module in model.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.model.gradient_checkpointing_enable({"use_reentrant": False})
        model.model.zero_grad()
        model.model.train()
        model.model(**model.batch()).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        difference = (gradients[1][name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert difference < 1e-4, name


@pytest.mark.parametrize("kind", TARGETS)
def test_frozen_weights_are_kept_in_bf16_and_compute_next_to_fp32_adapters(
    kind: str, checkpoints: dict[str, Path]
) -> None:
    experiment = experiment_of(
        kind,
        checkpoints[kind],
        lora=LORA | {"targets": (*TARGETS[kind], "shared", "lm_head")},
        training={"precision": "bf16"},
    )
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    model = Loaded(experiment, load_model(SEQ2SEQ, experiment, CPU, tokenizer, print), tokenizer)
    assert {p.dtype for p in model.model.parameters() if p.requires_grad} == {torch.float32}
    assert model.model.get_base_model().get_input_embeddings().weight.dtype == torch.bfloat16
    assert torch.isfinite(model.logits()).all()
    with torch.autocast("cpu", torch.bfloat16):
        model.step()
        assert torch.isfinite(model.logits()).all()
    model.model.generate(**{k: v for k, v in model.batch().items() if k != "labels"}, max_length=5)


def test_padding_rows_are_used_before_the_embedding_grows(checkpoints: dict[str, Path]) -> None:
    loaded = load("t5", "full", (), checkpoints)
    rows = loaded.model.get_input_embeddings().num_embeddings
    assert rows == len(loaded.tokenizer) - len(SPECIAL) + PADDED_BY
    assert loaded.new_ids == list(range(len(loaded.tokenizer) - len(SPECIAL), len(loaded.tokenizer)))


@pytest.mark.parametrize("kind", TARGETS)
def test_new_rows_start_at_the_mean_of_the_old_and_mt5_keeps_its_own_output(
    kind: str, checkpoints: dict[str, Path]
) -> None:
    original = AutoModelForSeq2SeqLM.from_pretrained(checkpoints[kind])
    loaded = load(kind, "full", (), checkpoints)
    old = loaded.new_ids[0]
    for name in ("get_input_embeddings", "get_output_embeddings"):
        before, after = getattr(original, name)().weight, getattr(loaded.model, name)().weight
        torch.testing.assert_close(after[:old], before[:old])
        torch.testing.assert_close(after[loaded.new_ids], before[:old].mean(0).expand(len(SPECIAL), -1))
    tied = loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    assert tied == (kind != "mt5")


@pytest.mark.parametrize("kind", TARGETS)
def test_without_its_adapters_a_model_is_what_it_was(kind: str, checkpoints: dict[str, Path]) -> None:
    loaded = load(kind, "lora", TARGETS[kind], checkpoints)
    before = loaded.logits()
    loaded.step(steps=2)
    with loaded.model.disable_adapter():
        torch.testing.assert_close(loaded.logits(), before)
