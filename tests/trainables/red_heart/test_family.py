"""The family: its corpus, its split, its baseline, its predictions and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dure.config import load_experiment
from dure.data.folds import cut_fold
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus, read_split
from dure.family.predicting import predict_rows
from trainables.red_heart.data import LABELS
from trainables.red_heart.scores import scores_of
from trainables.red_heart.tasks import BENTHAM, EMOTIONS, TASKS
from trainables.red_heart.tokenizer import train_tokenizer
from trainables.samples.dilemmas import TARGETS, dilemma_corpus, write_dilemmas

NAMES = {"emotion": EMOTIONS, "bentham": BENTHAM, "regret": ("regret",), "surd": ("a", "b", "c", "d")}


def silent(message: str) -> None:
    pass


def family_of(*overrides: str, notify=silent):
    return load_family(load_experiment("red_heart_tiny", overrides), notify)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [row.text for row in dilemma_corpus(num_train=200, num_dev=0, num_test=0)["train"]]


def test_the_corpus_is_the_same_for_one_seed_and_its_texts_differ() -> None:
    corpus, again = (dilemma_corpus(num_train=200, num_dev=40, num_test=40) for _ in range(2))
    assert corpus == again
    rows = [row for split in corpus.values() for row in split]
    assert len({row.text for row in rows}) == len(rows)
    assert {row.label for row in rows} == set(LABELS)


def test_label_noise_swaps_its_part_of_the_training_targets_and_nothing_else() -> None:
    clean, noisy = (
        dilemma_corpus(num_train=1000, num_dev=20, num_test=20, label_noise=part) for part in (0, 0.3)
    )
    assert (clean["dev"], clean["test"]) == (noisy["dev"], noisy["test"])
    assert [row.text for row in clean["train"]] == [row.text for row in noisy["train"]]
    for name in TARGETS:
        pairs = [
            (getattr(a, name), getattr(b, name)) for a, b in zip(clean["train"], noisy["train"], strict=True)
        ]
        assert [a is None for a, _ in pairs] == [b is None for _, b in pairs]
        assert 0.1 < np.mean([a != b for a, b in pairs if a is not None]) < 0.35


def test_the_written_corpus_is_what_the_family_reads(tmp_path) -> None:
    paths = write_dilemmas(tmp_path, label_noise=0.0)
    family = family_of(f"data.train={paths['train']}")
    table = read_split(family, "train", str(paths["train"]))
    assert table.num_rows == 2000
    first = json.loads(paths["train"].read_text(encoding="utf-8").splitlines()[0])
    assert table.dataset[0]["text"] == first["text"]


def test_the_three_parts_are_shuffled_stratified_and_share_no_text() -> None:
    family = family_of()
    table = read_split(family, "train", "sample")
    fold, _ = cut_fold(table, family.roles, family.experiment.data.fold)
    parts = [fold["train"], fold["dev"], fold["test"]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(table.num_rows))
    assert [len(part) / table.num_rows for part in parts] == pytest.approx([0.81, 0.09, 0.1], abs=0.01)
    assert fold["dev"].tolist() != list(range(len(fold["dev"])))
    for role in ("label", "leading_emotion"):
        classes = np.array(table.dataset[role][:])
        for name in {"label": LABELS, "leading_emotion": EMOTIONS}[role]:
            shares = [(classes[part] == name).mean() for part in parts]
            assert max(shares) - min(shares) < 0.05, name


def test_a_corpus_without_targets_is_refused_and_missing_ones_are_told(tmp_path) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text("".join(f'{{"text": "t{row}"}}\n' for row in range(20)), encoding="utf-8")
    with pytest.raises(UserError, match="no row has a target"):
        load_corpus(family_of(f"data.train={table}"), notify=silent)
    table.write_text(
        "".join(f'{{"text": "t{row}", "emotions": "joy"}}\n' for row in range(20)), encoding="utf-8"
    )
    told: list[str] = []
    load_corpus(family_of(f"data.train={table}", notify=told.append), notify=silent)
    assert any("20 of 20 rows have no regret_factor" in line for line in told)


def test_adapters_are_refused() -> None:
    with pytest.raises(UserError, match="trains all its weights"):
        family_of("lora.rank=4", "lora.alpha=8", "lora.targets=[q]")


def test_figures_are_those_of_the_rows_that_have_a_target() -> None:
    targets = np.full((4, 22), np.nan, dtype="float32")
    targets[:3, :7] = np.eye(7)[[0, 1, 1]]
    targets[3, :7] = [0.5, 0.5, 0, 0, 0, 0, 0]
    targets[:, 17] = [0, 1, 2, np.nan]
    logits = np.zeros((4, 22), dtype="float32")
    logits[:, :7] = 9 * np.eye(7)[[0, 1, 2, 3]]
    logits[:, 17] = [1, 2, 3, 50]
    figures = scores_of(logits, targets, NAMES)
    assert figures["emotion_accuracy"] == pytest.approx(2 / 3)
    assert figures["f1[joy]"] == 1
    assert (figures["regret_mae"], figures["regret_pearson"], figures["regret_spearman"]) == pytest.approx(
        (1, 1, 1)
    )
    assert not any(name.startswith(("bentham", "surd")) for name in figures)
    constant = scores_of(np.zeros_like(logits), targets, NAMES)
    assert (constant["regret_pearson"], constant["regret_spearman"]) == (0, 0)


def test_predictions_lie_where_they_must_and_an_ensemble_is_their_mean(cpu) -> None:
    family = family_of("data.max_train_rows=40", "data.max_dev_rows=8", "training.eval_batch_size=3")
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu)
    done: list[int] = []
    rows = predict_rows(family, model, corpus.tokenizer, corpus.dev, progress=done.append)
    assert sum(done) == len(rows) == len(corpus.dev)
    for row in rows:
        assert sum(row[f"probability_{name}"] for name in EMOTIONS) == pytest.approx(1, abs=1e-4)
        assert row["emotion"] == max(EMOTIONS, key=lambda name: row[f"probability_{name}"])
        assert all(0 <= row[f"bentham_{name}"] <= 1 for name in BENTHAM)
        assert sum(value for name, value in row.items() if name.startswith("surd_")) == pytest.approx(
            1, abs=1e-4
        )
    opposite = [{**row, "regret": -row["regret"]} for row in rows]
    assert {row["regret"] for row in family.combine([rows, opposite])} == {0}
    assert family.combine([rows, rows]) == rows


def test_every_task_has_a_loss_and_a_baseline(cpu) -> None:
    family = family_of("data.max_train_rows=80", "data.max_dev_rows=20")
    corpus = load_corpus(family, notify=silent)
    figures = family.baseline(corpus.tokenizer, corpus.train, corpus.dev)
    losses = [figures[f"eval_loss_{task}"] for task in TASKS]
    assert figures["eval_loss"] == pytest.approx(sum(losses))
    assert losses[0] == pytest.approx(np.log(7), rel=0.2)


@pytest.mark.parametrize("preset", ["730m", "800m", "320m"])
def test_the_rehearsal_of_any_preset_is_tiny(preset, cpu) -> None:
    family = family_of("rehearsal.enabled=true", f"task.preset={preset}", "model.checkpoint=nowhere")
    tokenizer = family.load_tokenizer(lambda: iter(["가나다 라마바"]))
    assert family.load_model(tokenizer, cpu).num_parameters() < 1e6


def test_a_model_is_trained_further_from_its_folder(cpu, tmp_path, texts) -> None:
    family = family_of()
    tokenizer = family.load_tokenizer(lambda: iter(texts))
    model = family.load_model(tokenizer, cpu)
    family.export(model, tokenizer, tmp_path / "first")
    further = family_of(f"model.checkpoint={tmp_path / 'first'}", "task.preset=730m")
    loaded = further.load_model(further.load_tokenizer(lambda: iter([])), cpu)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    other = family_of(f"model.checkpoint={tmp_path / 'first'}", "task.emotions=[good,bad]")
    with pytest.raises(UserError, match="other names"):
        other.load_model(tokenizer, cpu)


@pytest.fixture
def encoder(tmp_path, texts) -> Path:
    """An encoder of half the width, with a tokenizer of its own."""
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(iter(texts), 400)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_an_encoders_embedding_keeps_the_angles_between_its_tokens(encoder, cpu) -> None:
    family = family_of(f"task.embedding_from={encoder}")
    tokenizer = family.load_tokenizer(lambda: iter([]))
    taken = family.load_model(tokenizer, cpu).get_input_embeddings().weight[1 : len(tokenizer)]
    rows = BertModel.from_pretrained(encoder).get_input_embeddings().weight[1 : len(tokenizer)]
    first, second = (torch.nn.functional.normalize(each, dim=1) for each in (taken, rows))
    torch.testing.assert_close(first @ first.T, second @ second.T, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("option", ["model.checkpoint", "task.embedding_from"])
def test_a_folder_without_a_model_is_refused_by_its_option(option, tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        family_of(f"{option}={tmp_path}").load_tokenizer(lambda: iter([]))
    assert option in caught.value.where
