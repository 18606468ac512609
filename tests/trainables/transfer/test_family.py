"""The transfer family: its classes, its losses, its predictions, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    RobertaConfig,
    ViTConfig,
)

from dure import api, notebook
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.predicting import predict_rows
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest, run
from dure.training.trainer import ModelTrainer

LABELS = ("10", "2   ", " 9", "2")
ROWS = [
    (f"오늘은 {word} 이야기를 {number}번 들었다", LABELS[number % 4])
    for number, word in enumerate("가나다라마바사아자차카타" * 2)
]


def silent(message: str) -> None:
    pass


def changed(experiment: Experiment, **sections) -> Experiment:
    return Experiment.model_validate(experiment.model_dump() | sections)


def on_tables(experiment: Experiment, folder: Path, dev_labels=("2", "10", "9")) -> Experiment:
    """The experiment on a small table of its own, with labels that are numbers and have spaces around them."""
    for name, rows in {
        "train": ROWS,
        "dev": [(f"새 글 {label}{place}", label) for place, label in enumerate(dev_labels)],
    }.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("문장", "감정"), *rows])
    return changed(
        experiment,
        tokenizer=experiment.tokenizer.model_dump() | {"max_unknown_rate": 1.0},
        data={
            "train": str(folder / "train.csv"),
            "dev": str(folder / "dev.csv"),
            "columns": {"text": "문장", "label": "감정"},
        },
    )


def loaded(experiment: Experiment, profile):
    family = load_family(experiment)
    corpus = load_corpus(family, notify=silent)
    return family, corpus, family.load_model(corpus.tokenizer, profile)


def test_labels_are_stripped_ordered_by_value_saved_and_predicted_as_they_were(tiny, cpu, tmp_path) -> None:
    experiment = on_tables(tiny("bert", "full"), tmp_path)
    result = run(RunRequest(experiment, cpu, tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    config = json.loads((folder.final_model / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "2", "1": "9", "2": "10"}
    assert config["label2id"] == {"2": 0, "9": 1, "10": 2}
    for name in ("accuracy", "macro_f1", "weighted_f1", "loss"):
        assert f"eval_{name}" in result.metrics
    for figure in ("precision", "recall", "f1", "support"):
        assert {f"eval_{figure}[{label}]" for label in ("2", "9", "10")} <= set(result.metrics)
    assert result.metrics["eval_support[9]"] == 1

    (tmp_path / "new.csv").write_text("문장\n가나다 이야기\n라마바 이야기를 들었다\n", encoding="utf-8")
    api.predict(
        folder.path,
        tmp_path / "new.csv",
        tmp_path / "out.csv",
        profile=cpu,
        progress=lambda done, all: None,
        notify=silent,
    )
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "probability_2", "probability_9", "probability_10"]
    assert len(rows) == 2
    for row in rows:
        shares = {label: float(row[f"probability_{label}"]) for label in ("2", "9", "10")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(shares, key=shares.__getitem__)


def test_classes_do_not_depend_on_the_order_or_number_of_rows_that_are_trained_on(tiny, tmp_path) -> None:
    experiment = on_tables(tiny("bert", "full"), tmp_path)
    family = load_family(changed(experiment, data=experiment.data.model_dump() | {"max_train_rows": 2}))
    assert len(load_corpus(family, notify=silent).train) == 2
    assert family.classes == ("2", "9", "10")


def test_a_class_that_training_lacks_is_refused_with_its_row(tiny, tmp_path) -> None:
    family = load_family(on_tables(tiny("bert", "full"), tmp_path, dev_labels=("2", "3", "슬픔")))
    with pytest.raises(UserError) as caught:
        load_corpus(family, notify=silent)
    assert "no class '3' (and 1 more)" in caught.value.problem
    assert "dev.csv" in caught.value.where
    assert "row 2" in caught.value.where
    assert caught.value.expected == "one of 2, 9, 10"


def test_one_class_alone_is_refused(tiny, tmp_path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,x \n", encoding="utf-8")
    family = load_family(
        changed(tiny("bert", "full"), data={"train": str(tmp_path / "train.csv"), "dev": None})
    )
    with pytest.raises(UserError, match="every row is of the class 'x'"):
        load_corpus(family, notify=silent)


def test_the_labels_take_no_part_in_the_tokenizer(tiny) -> None:
    family = load_family(tiny("bert", "full"))
    corpus = load_corpus(family, notify=silent)
    texts = {row["text"] for row in family.sample("train")}
    assert not any("불만" in text for text in texts)
    assert "불만" not in corpus.tokenizer.get_vocab()


def test_accumulation_and_validation_batches_change_no_number(tiny, cpu, tmp_path) -> None:
    numbers = []
    for batch_size, accumulation, eval_batch_size in ((8, 1, 6), (2, 4, 4), (4, 2, 1)):
        experiment = tiny(
            "bert",
            "full",
            batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            eval_batch_size=eval_batch_size,
        )
        family, corpus, model = loaded(experiment, cpu)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer = ModelTrainer(
            family,
            model,
            corpus.tokenizer,
            corpus.train,
            corpus.dev,
            profile=cpu,
            folder=RunFolder(tmp_path / str(batch_size)),
        )
        outcome = trainer.train()
        numbers.append([outcome["eval_metrics"]["eval_loss"], outcome["untrained_metrics"]["untrained_loss"]])
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)
    assert numbers[0] == pytest.approx(numbers[2], rel=1e-5)


def test_the_validation_loss_is_the_mean_over_rows(tiny, cpu, tmp_path) -> None:
    family, corpus, model = loaded(tiny("distilbert", "full"), cpu)
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, corpus.dev, profile=cpu, folder=RunFolder(tmp_path)
    )
    metrics = trainer.evaluate()
    model.eval()
    losses, hits = [], []
    for row in corpus.dev:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
        losses.append(functional.cross_entropy(logits, torch.tensor([row["labels"]])).item())
        hits.append(logits.argmax().item() == row["labels"])
    assert metrics["eval_loss"] == pytest.approx(numpy.mean(losses), rel=1e-5)
    assert metrics["eval_accuracy"] == pytest.approx(numpy.mean(hits))


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("electra", "full"), ("roberta", "lora"), ("deberta-v2", "full"), ("modernbert", "lora")],
)
def test_encoders_of_today_are_rehearsed_to_a_model_that_loads_again(
    architecture: str, kind: str, tiny, cpu, tmp_path
) -> None:
    experiment = tiny(architecture, kind, max_steps=4)
    result = run(RunRequest(experiment, cpu, tmp_path))
    assert numpy.isfinite(result.metrics["eval_loss"])
    folder = RunFolder(tmp_path).final_model
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == architecture
    assert not hasattr(model, "peft_config")
    longest = tokenizer("불만 " * 99, truncation=True, max_length=experiment.tokenizer.encoder_max_len)
    assert len(longest["input_ids"]) == experiment.tokenizer.encoder_max_len
    with torch.no_grad():
        logits = model(torch.tensor([longest["input_ids"]])).logits
    assert logits.isfinite().all()
    family, corpus, _ = loaded(experiment, cpu)
    again, _ = family.load_exported(folder)
    predictions = predict_rows(family, again, corpus.tokenizer, corpus.dev)
    hits = [
        row["label"] == family.classes[label]
        for row, label in zip(predictions, corpus.dev["labels"], strict=True)
    ]
    assert numpy.mean(hits) == pytest.approx(result.metrics["eval_accuracy"])


def test_a_graph_in_the_place_of_the_model_tells_the_names_of_the_classes(tiny) -> None:
    family = load_family(tiny("bert", "full"), lambda message: None)
    family.know(SimpleNamespace(config=BertConfig(id2label={0: "불만", 1: "칭찬"})))
    (row,) = family.predictions(torch.tensor([[0.0, 2.0]]), {}, None)
    assert row["label"] == "칭찬"


@pytest.fixture
def headless(tiny, tmp_path):
    """An experiment on a saved BERT that has neither head nor pooler, with a tokenizer of the sample corpus."""
    family = load_family(tiny("bert", "lora"))
    tokenizer = load_corpus(family, notify=silent).tokenizer
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=80, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    rehearsal = tiny("bert", "lora")
    return changed(
        rehearsal,
        model={"checkpoint": str(tmp_path / "bert")},
        rehearsal=rehearsal.rehearsal.model_dump() | {"enabled": False},
    )


def test_under_lora_all_that_the_checkpoint_lacks_is_told_trained_and_saved(headless, cpu, tmp_path) -> None:
    told: list[str] = []
    family = load_family(headless, told.append)
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu)
    assert any("lacks 4 weights, which start at random" in line for line in told)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for part in ("pooler.dense", "classifier", "lora_A"):
        assert any(part in name for name in trained), part
    assert not any("word_embeddings" in name for name in trained)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    family.export(model, corpus.tokenizer, tmp_path / "final")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    ids = torch.tensor([corpus.dev[0]["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(
            plain(ids).logits, model.eval()(input_ids=ids).logits, atol=1e-5, rtol=1e-4
        )


def test_frozen_bf16_weights_have_a_head_in_fp32(headless, cpu) -> None:
    experiment = changed(headless, training=headless.training.model_dump() | {"precision": "bf16"})
    _, _, model = loaded(experiment, cpu)
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_a_head_over_other_classes_is_replaced_and_told(headless, cpu, tmp_path) -> None:
    folder = Path(headless.model.checkpoint)
    BertConfig.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.save_pretrained(folder)
    told: list[str] = []
    family = load_family(headless, told.append)
    corpus = load_corpus(family, notify=silent)
    assert family.load_model(corpus.tokenizer, cpu).config.num_labels == 5
    assert any("classifier.bias" in line for line in told)


def test_texts_longer_than_the_model_reads_are_refused(headless, cpu) -> None:
    experiment = changed(headless, tokenizer=headless.tokenizer.model_dump() | {"encoder_max_len": 81})
    with pytest.raises(UserError, match="81 tokens") as caught:
        loaded(experiment, cpu)
    assert caught.value.expected == "at most 80"


def test_positions_that_begin_behind_the_padding_are_no_room_for_texts(headless, cpu) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = RobertaConfig(vocab_size=2000, max_position_embeddings=66, pad_token_id=1, **sizes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(headless.model.checkpoint)
    experiment = changed(headless, tokenizer=headless.tokenizer.model_dump() | {"encoder_max_len": 65})
    with pytest.raises(UserError, match="65 tokens") as caught:
        loaded(experiment, cpu)
    assert caught.value.expected == "at most 64"
    fitting = changed(headless, tokenizer=headless.tokenizer.model_dump() | {"encoder_max_len": 64})
    _, _, model = loaded(fitting, cpu)
    ids = torch.full((1, 64), 5)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()


def test_a_checkpoint_that_is_no_text_encoder_is_refused(headless, cpu) -> None:
    ViTConfig().save_pretrained(headless.model.checkpoint)
    with pytest.raises(UserError, match="vit model, which is no text encoder"):
        loaded(headless, cpu)


def test_the_functions_of_the_python_interface_train_a_classifier(tiny, cpu, tmp_path) -> None:
    config = tiny("distilbert", "lora")
    model, tokenizer = notebook.load_model_and_tokenizer(config, profile=cpu, notify=silent)
    train, dev = notebook.load_datasets(config, tokenizer, notify=silent)
    trainer = notebook.create_trainer(
        config, model, tokenizer, train, dev, profile=cpu, output=tmp_path / "run"
    )
    results = trainer.train()
    assert Path(results["final_model_path"]).is_dir()
    assert 0 <= results["eval_metrics"]["eval_f1[불만]"] <= 1
