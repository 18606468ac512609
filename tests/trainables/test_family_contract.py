"""Every family of ours, in every way of training, keeps the contract."""

from __future__ import annotations

import pytest

from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.testing import check_family

EMOTION = {
    "family": "trainables.emotion",
    "task": {"cleaning": {}},
    "objective": {"label_smoothing": 0.1, "class_weights": "balanced"},
    "best_metric": "eval_macro_f1",
}
RED_HEART = {
    "family": "trainables.red_heart",
    "task": {"weighting": "uncertainty"},
    "objective": {"label_smoothing": 0.1, "r_drop": 0.5},
    "best_metric": "eval_emotion_macro_f1",
}
CHATS = {"task": {"rows": "messages", "rouge_tokenizer": "character"}}
PACKS = {
    "task": {"batch_counts": "tokens", "pack_tokens": 300, "rouge_tokenizer": "character"},
    "batch_size": 2,
}
LOSS = {"task": {"validate": "loss", "packing": False}, "best_metric": "eval_loss"}
EMOTIONS = EMOTION | {"task": {"multi_label": True, "threshold": 0.3}}
CASES = {
    **{f"{architecture}-{kind}": (architecture, kind, {})
       for architecture in ("mt5", "t5", "bart") for kind in ("full", "lora", "qlora")},
    **{f"{architecture}-{kind}": (architecture, kind, {})
       for architecture in ("bert", "distilbert") for kind in ("full", "lora")},
    "llama-full": ("llama", "full", {}),
    "qwen3-lora": ("qwen3", "lora", CHATS),
    "gemma3-qlora": ("gemma3_text", "qlora", {}),
    "qwen2-full-loss": ("qwen2", "full", LOSS),
    "llama-packs": ("llama", "full", PACKS),
    "exaone4-lora": ("exaone4", "lora", {"objective": {"label_smoothing": 0.1}}),
    "bert-qlora": ("bert", "qlora", {}),
    "emotion-full": ("bert", "full", EMOTION),
    "emotions-lora": ("bert", "lora", EMOTIONS),
    "red_heart": ("red_heart", "full", RED_HEART),
}  # fmt: skip
RUN_BY_DEFAULT = {"bert-full", "red_heart", "qwen3-lora"}
"""The cases whose runs are in the default suite; their likes are in the slow one."""


@pytest.mark.parametrize("case", CASES)
def test_a_model_of_ours_keeps_the_contract(case, tiny, cpu, tmp_path) -> None:
    architecture, kind, more = CASES[case]
    check_family(tiny(architecture, kind, **more), tmp_path, profile=cpu, runs=False)


@pytest.mark.parametrize(
    "case", [name if name in RUN_BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_run_of_ours_keeps_the_contract(case, tiny, cpu, tmp_path) -> None:
    architecture, kind, more = CASES[case]
    check_family(tiny(architecture, kind, **more), tmp_path, profile=cpu)


@pytest.mark.parametrize(
    "case", ["t5-full", "llama-full", "bert-full", "emotion-full", "emotions-lora", "red_heart"]
)
def test_the_trivial_predictor_has_the_metric_that_chooses(case, tiny) -> None:
    architecture, kind, more = CASES[case]
    family = load_family(tiny(architecture, kind, **more))
    corpus = load_corpus(family, notify=lambda message: None)
    figures = family.baseline(corpus.tokenizer, corpus.train, corpus.dev)
    assert family.experiment.training.best_metric in figures
