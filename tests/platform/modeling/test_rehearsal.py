"""The miniature and its tokenizer: the real architecture, deterministic, and able to learn under LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.modeling.loading import load_model, load_tokenizer
from dure.modeling.rehearsal import build_miniature, train_tokenizer
from dure.modeling.task import CAUSAL, SEQ2SEQ, classification
from tests.platform.modeling.tiny_models import CPU, PADDED_BY, SPECIAL, TARGETS, TEXTS, experiment_of

ENCODERS = ("bert", "distilbert")
SEQ2SEQ_KINDS = ("t5", "mt5", "bart")

PEOPLE = ["민수", "서연", "지훈", "유진", "하늘", "도윤"]
PLACES = ["도서관", "회의실", "시장", "학교", "병원", "공항"]
DIALOGUES = [
    (f"#Person1#: {person} 씨는 어디에 있어요?\n#Person2#: {place}에 있어요.", f"#Person1#은 {place}에 간다.")
    for person in PEOPLE
    for place in PLACES
]


def rehearsal(kind: str, **sections) -> Experiment:
    return experiment_of(kind, "nobody/nothing", **({"rehearsal": {"enabled": True}} | sections))


def all_texts():
    return (text for row in DIALOGUES for text in row)


@pytest.mark.parametrize("kind", [*SEQ2SEQ_KINDS, *ENCODERS, "roberta", "llama"])
def test_equal_texts_give_equal_tokenizers(kind: str) -> None:
    first, second = (train_tokenizer(all_texts(), rehearsal(kind)).backend_tokenizer for _ in range(2))
    assert first.to_str() == second.to_str()


@pytest.mark.parametrize("kind", SEQ2SEQ_KINDS)
def test_the_tokenizer_has_the_control_tokens_of_the_architecture_and_ends_texts(kind: str) -> None:
    tokenizer = train_tokenizer(all_texts(), rehearsal(kind))
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == ((1, 2, 3) if kind == "bart" else (0, 1, 2))
    assert tokenizer("도서관")["input_ids"][-1] == tokenizer.eos_token_id
    assert len(tokenizer) <= 2000


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoders_tokenizer_keeps_hangul_and_case_and_survives_saving(kind: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(rehearsal(kind), all_texts)
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert len(tokenizer) <= 2000 + len(SPECIAL)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text, _ in DIALOGUES:
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert tokenizer.unk_token_id not in ids
        # BERT's pieces do not say where spaces stood around punctuation.
        assert "".join(loaded.decode(ids, skip_special_tokens=True).split()) == "".join(text.split())
    names = train_tokenizer(iter(["KoBERT는 가각간 Kobert"] * 3), rehearsal(kind))
    assert names.tokenize("KoBERT 가각간") != names.tokenize("kobert 가각간")


@pytest.mark.parametrize("kind", SEQ2SEQ_KINDS)
def test_text_comes_back_after_saving_and_loading(kind: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(rehearsal(kind), all_texts)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text, _ in DIALOGUES:
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        expected = text if kind == "bart" else text.replace("\n", " ")
        assert loaded.decode(ids, skip_special_tokens=True) == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([*PEOPLE, *PLACES, "#Person1#", "#Person2#은"]), min_size=1, max_size=8))
def test_known_words_come_back_in_any_order(words: list[str]) -> None:
    text = " ".join(words)
    for tokenizer in TOKENIZERS:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


TOKENIZERS = [load_tokenizer(rehearsal(kind), all_texts) for kind in ("mt5", "bart")]


def test_a_vocabulary_too_small_for_every_character_keeps_the_frequent_ones() -> None:
    rare = "".join(chr(0xAC00 + 7 * i) for i in range(400))
    texts = [*(text for row in DIALOGUES for text in row), rare]
    experiment = rehearsal("mt5", rehearsal={"enabled": True, "vocab_size": 150})
    tokenizer = train_tokenizer(iter(texts), experiment)
    assert len(tokenizer) <= 150
    assert tokenizer.unk_token_id not in tokenizer("도서관에 있어요.")["input_ids"]
    assert tokenizer.unk_token_id in tokenizer(rare)["input_ids"]


@pytest.mark.parametrize("kind", SEQ2SEQ_KINDS)
def test_the_miniature_is_the_architecture_with_the_sizes_asked_for(kind: str) -> None:
    experiment = rehearsal(
        kind, rehearsal={"enabled": True, "hidden_size": 32, "num_layers": 1, "num_heads": 2}
    )
    tokenizer = load_tokenizer(experiment, all_texts)
    model = build_miniature(experiment, tokenizer, SEQ2SEQ)
    assert model.config.model_type == kind
    assert model.get_input_embeddings().weight.shape == (len(tokenizer) - len(SPECIAL), 32)
    is_separate = model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    assert is_separate == (kind == "mt5")
    names = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(TARGETS[kind]) <= names
    again = build_miniature(experiment, tokenizer, SEQ2SEQ).state_dict()
    assert all(tensor.equal(again[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_folder_lends_the_miniature_everything_but_its_sizes(
    checkpoints: dict[str, Path],
) -> None:
    experiment = experiment_of(
        "mt5", checkpoints["t5"], rehearsal={"enabled": True, "hidden_size": 32, "num_heads": 2}
    )
    model = build_miniature(experiment, load_tokenizer(experiment, all_texts), SEQ2SEQ)
    assert model.config.model_type == "t5"
    assert model.config.feed_forward_proj == "relu"
    assert model.config.d_model == 32
    assert model.config.vocab_size != len(AutoTokenizer.from_pretrained(checkpoints["t5"])) + PADDED_BY


@pytest.mark.parametrize(
    ("architecture", "similar"), [(None, None), ("electr", "electra"), ("robert", "roberta")]
)
def test_an_unknown_architecture_is_refused_with_what_to_give(
    architecture: str | None, similar: str | None
) -> None:
    experiment = rehearsal("t5", model={"checkpoint": "nobody/nothing", "architecture": architecture})
    with pytest.raises(UserError) as caught:
        train_tokenizer(iter(TEXTS), experiment)
    assert caught.value.where == "model.architecture"
    assert "the model_type of the checkpoint's config.json" in str(caught.value.expected)
    assert caught.value.hint == (None if similar is None else f"model.architecture={similar}")


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("bert", SEQ2SEQ),
        ("llama", SEQ2SEQ),
        ("t5", classification(["a", "b"])),
        ("bert", CAUSAL),
        ("bart", CAUSAL),
    ],
)
def test_an_architecture_of_another_task_is_refused_with_what_to_give(kind: str, task) -> None:
    experiment = rehearsal(kind)
    with pytest.raises(UserError) as caught:
        build_miniature(experiment, load_tokenizer(experiment, all_texts), task)
    assert caught.value.where == "model.architecture"
    assert caught.value.expected == task.expected


@pytest.mark.parametrize(
    ("kind", "targets", "quantization"),
    [
        ("mt5", TARGETS["mt5"], {"type": "nf4", "double": True}),
        ("t5", TARGETS["t5"], None),
        ("bart", TARGETS["bart"], {"type": "nf4", "double": True}),
    ],
)
def test_a_frozen_miniature_learns_through_its_adapters(
    kind: str, targets: tuple[str, ...], quantization
) -> None:
    experiment = rehearsal(
        kind,
        model={"checkpoint": "nobody/nothing", "architecture": kind, "quantization": quantization},
        lora={"rank": 48, "alpha": 96, "targets": targets},
    )
    tokenizer = load_tokenizer(experiment, all_texts)
    model = load_model(SEQ2SEQ, experiment, CPU, tokenizer, print)
    inputs = tokenizer([text for text, _ in DIALOGUES], padding=True, return_tensors="pt")
    labels = tokenizer([target for _, target in DIALOGUES], padding=True, return_tensors="pt")["input_ids"]
    batch = {**inputs, "labels": labels.masked_fill(labels == tokenizer.pad_token_id, -100)}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    model.train()
    for _ in range(60):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 12
    assert losses[-1] < 0.4 * losses[0]
    assert losses[-1] < 1.5


@pytest.mark.parametrize(
    ("kind", "targets", "quantization"),
    [
        ("bert", ("query", "value"), {"type": "nf4", "double": True}),
        ("distilbert", ("q_lin", "v_lin"), None),
    ],
)
def test_a_frozen_encoder_learns_through_adapters_and_its_head(kind: str, targets, quantization) -> None:
    experiment = rehearsal(
        kind,
        tokenizer={"special_tokens": SPECIAL, "encoder_max_len": 64},
        model={"checkpoint": "nobody/nothing", "architecture": kind, "quantization": quantization},
        lora={"rank": 8, "alpha": 16, "targets": targets},
    )
    tokenizer = load_tokenizer(experiment, all_texts)
    model = load_model(classification(PLACES), experiment, CPU, tokenizer, print)
    inputs = tokenizer([text for text, _ in DIALOGUES], padding=True, return_tensors="pt")
    labels = torch.tensor([place for _ in PEOPLE for place in range(len(PLACES))])
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("lora_" in name for name in trained)
    assert any("classifier" in name for name in trained)
    assert all("lora_" in name or "classifier" in name for name in trained)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
