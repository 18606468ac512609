"""A miniature of any architecture: small, true to its kind, able to train, to be saved and to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, Phi3Config, PreTrainedModel, RobertaConfig

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.rehearsal import build_miniature
from dure.modeling.task import CAUSAL, SEQ2SEQ, Task, classification
from tests.platform.modeling.tiny_models import CPU, SPECIAL, TEXTS, experiment_of

LENGTH = 40
CLASSES = classification(["불만", "칭찬", "질문"])
SEQ2SEQ_KINDS = ("t5", "mt5", "bart", "mbart", "pegasus")
ENCODERS = (
    *(
        "bert",
        "distilbert",
        "electra",
        "roberta",
        "xlm-roberta",
        "deberta",
        "deberta-v2",
        "modernbert",
        "albert",
    ),
    *("mpnet", "convbert"),
)
DECODERS = (
    *("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "mistral", "gpt2", "gpt_neox", "phi3"),
    *("opt", "mixtral", "qwen3_moe", "smollm3", "deepseek_v3"),
)
KINDS = [
    *((kind, SEQ2SEQ) for kind in SEQ2SEQ_KINDS),
    *((kind, CLASSES) for kind in ENCODERS),
    *((kind, CAUSAL) for kind in DECODERS),
]
LINEAR = {
    "electra": "query",
    "roberta": "query",
    "deberta-v2": "query_proj",
    "modernbert": "Wqkv",
    "llama": "q_proj",
    "qwen3": "k_proj",
    "gemma2": "o_proj",
    "mistral": "gate_proj",
}


def rehearsal(kind: str, checkpoint: str | Path = "nobody/nothing", **sections: Any) -> Experiment:
    mini = {"enabled": True, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 400}
    return experiment_of(
        kind,
        checkpoint,
        tokenizer={"special_tokens": SPECIAL, "encoder_max_len": LENGTH, "decoder_max_len": 20},
        generation={"max_length": 20},
        **({"rehearsal": mini | sections.pop("mini", {})} | sections),
    )


def built(experiment: Experiment, task: Task) -> PreTrainedModel:
    return build_miniature(experiment, load_tokenizer(experiment, lambda: iter(TEXTS)), task)


def batch_of(experiment: Experiment, model: PreTrainedModel, task: Task) -> dict[str, torch.Tensor]:
    """Two rows as long as texts may be, one padded."""
    tokenizer = load_tokenizer(experiment, lambda: iter(TEXTS))
    rows = tokenizer(
        [" ".join(TEXTS), TEXTS[0]],
        truncation=True,
        max_length=LENGTH,
        padding=True,
        return_tensors="pt",
    )
    inputs = {"input_ids": rows["input_ids"], "attention_mask": rows["attention_mask"]}
    assert inputs["input_ids"].shape == (2, LENGTH)
    inputs["input_ids"].clamp_(max=model.config.vocab_size - 1)
    if task is CLASSES:
        return {**inputs, "labels": torch.tensor([2, 0])}
    targets = inputs["input_ids"][:, :20] if task is SEQ2SEQ else inputs["input_ids"]
    return {**inputs, "labels": targets.masked_fill(targets == tokenizer.pad_token_id, -100)}


@pytest.mark.parametrize(("kind", "task"), KINDS, ids=[kind for kind, _ in KINDS])
def test_a_miniature_is_small_trains_on_the_longest_texts_and_loads_again(
    kind: str, task: Task, tmp_path: Path
) -> None:
    experiment = rehearsal(kind)
    model = built(experiment, task)
    config = model.config
    assert config.model_type == kind
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 2, 4)
    assert sum(parameter.numel() for parameter in model.parameters()) < 150_000
    batch = batch_of(experiment, model, task)
    model.train()
    loss = model(**batch).loss
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.isfinite()
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    model.save_pretrained(tmp_path)
    again = task.auto_class.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)


@pytest.mark.parametrize(("kind", "linear"), LINEAR.items())
def test_adapters_find_the_layers_by_the_architectures_own_names(kind: str, linear: str) -> None:
    task = CAUSAL if kind in DECODERS else CLASSES
    experiment = rehearsal(kind, lora={"rank": 2, "alpha": 4, "targets": [linear]})
    tokenizer = load_tokenizer(experiment, lambda: iter(TEXTS))
    model = load_model(task, experiment, CPU, tokenizer, print)
    assert isinstance(model, task.adapted_class)
    assert model.active_peft_config.task_type == task.adapted_class.task_type
    assert any(linear in name and p.requires_grad for name, p in model.named_parameters())


def test_a_decoder_learns_to_continue_a_text_through_its_adapters() -> None:
    experiment = rehearsal(
        "llama", lora={"rank": 16, "alpha": 32, "targets": ["q_proj", "v_proj", "down_proj"]}
    )
    tokenizer = load_tokenizer(experiment, lambda: iter(TEXTS))
    model = load_model(CAUSAL, experiment, CPU, tokenizer, print)
    batch = batch_of(experiment, model.get_base_model(), CAUSAL)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(40):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_every_kind_of_layer_stays_and_windows_are_felt() -> None:
    gemma = built(rehearsal("gemma3_text"), CAUSAL).config
    assert gemma.layer_types == ["sliding_attention", "full_attention"]
    # What is read and what is written stand in one sequence.
    assert gemma.sliding_window <= (LENGTH + 20) // 2 + 2
    assert set(gemma.rope_parameters) == {"sliding_attention", "full_attention"}
    bert = built(rehearsal("modernbert"), CLASSES).config
    assert bert.layer_types == ["full_attention", "sliding_attention"]
    assert bert.local_attention <= LENGTH // 2 + 2
    smol = built(rehearsal("smollm3"), CAUSAL).config
    assert sorted(smol.no_rope_layers) == [0, 1]
    deep = built(rehearsal("modernbert", mini={"num_layers": 24}), CLASSES).config
    assert len(deep.layer_types) == 24


def test_sizes_that_hang_together_stay_together() -> None:
    electra = built(rehearsal("electra"), CLASSES).config
    assert (electra.embedding_size, electra.hidden_size) == (16, 32)
    mistral = built(rehearsal("mistral"), CAUSAL).config
    assert (mistral.num_attention_heads, mistral.num_key_value_heads) == (4, 1)
    gemma = built(rehearsal("gemma2"), CAUSAL).config
    assert (gemma.num_key_value_heads, gemma.head_dim, gemma.query_pre_attn_scalar) == (2, 8, 8)
    deberta = built(rehearsal("deberta-v2"), CLASSES).config
    assert deberta.relative_attention
    assert set(deberta.pos_att_type) == {"c2p", "p2c"}
    albert = built(rehearsal("albert", mini={"num_layers": 4}), CLASSES)
    assert len(albert.base_model.encoder.albert_layer_groups) == 1


def test_a_folders_configuration_stays_in_everything_but_the_sizes(tmp_path: Path) -> None:
    factors = [1.0 + place / 10 for place in range(48)]
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": factors, "long_factor": factors}
    Phi3Config(
        rope_parameters={**rope, "original_max_position_embeddings": 4096},
        max_position_embeddings=131072,
        attention_dropout=0.25,
    ).save_pretrained(tmp_path / "phi3")
    experiment = rehearsal("anything", tmp_path / "phi3")
    model = built(experiment, CAUSAL)
    assert model.config.attention_dropout == 0.25
    assert model.config.rope_parameters["long_factor"] == factors[:4]
    assert model(**batch_of(experiment, model, CAUSAL)).loss.isfinite()
    RobertaConfig(max_position_embeddings=514, type_vocab_size=1, hidden_act="relu").save_pretrained(
        tmp_path / "roberta"
    )
    config = built(rehearsal("anything", tmp_path / "roberta"), CLASSES).config
    assert (config.hidden_act, config.type_vocab_size) == ("relu", 1)
    assert config.max_position_embeddings == LENGTH + config.pad_token_id + 1


@pytest.mark.parametrize(
    ("kind", "begin", "end"),
    [
        ("electra", "[CLS]", "[SEP]"),
        ("deberta-v2", "[CLS]", "[SEP]"),
        ("modernbert", "[CLS]", "[SEP]"),
        ("roberta", "<s>", "</s>"),
        ("mbart", None, "</s>"),
        ("llama", "<s>", None),
        ("gemma2", "<bos>", None),
        ("qwen2", None, None),
        ("gpt2", None, None),
    ],
)
def test_a_tokenizer_has_its_architectures_control_tokens_and_survives_saving(
    kind: str, begin: str | None, end: str | None, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(rehearsal(kind), lambda: iter(TEXTS))
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = again(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        tokens = again.convert_ids_to_tokens(ids)
        special = [token for token in tokens if token in again.all_special_tokens]
        assert special == [token for token in (begin, end) if token is not None]
        assert begin is None or tokens[0] == begin
        assert end is None or tokens[-1] == end
    own = {again.pad_token_id, again.unk_token_id}
    assert len(own) == 2
    assert not own & {again.eos_token_id, again.bos_token_id, again.cls_token_id, again.sep_token_id}
    assert len(tokenizer) <= 400 + len(SPECIAL)


def test_the_configuration_names_the_tokenizers_control_tokens() -> None:
    for kind, task in (
        ("modernbert", CLASSES),
        ("roberta", CLASSES),
        ("gemma", CAUSAL),
        ("pegasus", SEQ2SEQ),
    ):
        experiment = rehearsal(kind)
        tokenizer = load_tokenizer(experiment, lambda: iter(TEXTS))
        config = build_miniature(experiment, tokenizer, task).config
        for role in ("pad", "bos", "eos"):
            if role == "pad" or getattr(AutoConfig.for_model(kind), f"{role}_token_id", None) is not None:
                assert getattr(config, f"{role}_token_id") == getattr(tokenizer, f"{role}_token_id"), (
                    kind,
                    role,
                )


def test_heads_too_odd_to_be_rotated_are_refused_with_the_key() -> None:
    with pytest.raises(UserError, match="no pairs") as caught:
        built(rehearsal("llama", mini={"hidden_size": 12}), CAUSAL)
    assert caught.value.where == "rehearsal.num_heads"
    assert caught.value.expected == "hidden_size 12 / num_heads a multiple of 2"
    assert built(rehearsal("llama", mini={"hidden_size": 12, "num_heads": 3}), CAUSAL).config.head_dim == 4


def test_a_configuration_that_cannot_be_shrunk_is_refused_with_one_that_can() -> None:
    with pytest.raises(UserError, match="cannot make 'gemma3' small") as caught:
        built(rehearsal("gemma3"), CAUSAL)
    assert caught.value.where == "model.architecture"
    assert caught.value.hint == "model.architecture=gemma3_text"
    with pytest.raises(UserError, match="cannot make 'perceiver' small") as caught:
        built(rehearsal("perceiver"), CLASSES)
    assert caught.value.where == "model.architecture"
    assert "--rehearse" in str(caught.value.hint)
