"""Two texts as one input: how they are joined, cut and told apart, by every kind of encoder."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dure import api
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.predicting import predict_rows
from dure.family.testing import check_family
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest, run
from trainables.samples.sentence_pairs import RELATIONS, sentence_pair_corpus
from trainables.transfer.pairs import is_parted, pair_ids

ENCODERS = ("bert", "electra", "roberta", "deberta-v2", "modernbert", "distilbert")


def silent(message: str) -> None:
    pass


def paired(tiny, architecture="bert", kind="full", **more):
    return tiny(architecture, kind, **more).with_({"data.columns": {"text_pair": "text_pair"}})


@pytest.fixture(scope="module")
def loaded(tiny, cpu):
    family = load_family(paired(tiny))
    corpus = load_corpus(family, notify=silent)
    return family, corpus, family.load_model(corpus.tokenizer, cpu)


def test_a_pair_stands_between_the_tokens_of_its_architecture(loaded) -> None:
    family, corpus, model = loaded
    row = family.sample("train")[0]
    features = family.encode({name: [text] for name, text in row.items()}, corpus.tokenizer)
    (ids,), (types,) = features["input_ids"], features["token_type_ids"]
    tokens = corpus.tokenizer.convert_ids_to_tokens(ids)
    first = tokens.index("[SEP]")
    assert (tokens[0], tokens[-1], tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert types == [0] * (first + 1) + [1] * (len(ids) - first - 1)
    assert is_parted(corpus.tokenizer)
    batch = family.batches(corpus.tokenizer, model).collate([corpus.train[0], corpus.train[1]])
    assert batch["token_type_ids"].shape == batch["input_ids"].shape
    assert family.classes == tuple(sorted(RELATIONS))


def test_the_logits_are_those_of_the_model_called_as_its_documentation_says(loaded) -> None:
    family, corpus, model = loaded
    rows = family.sample("dev")[:3]
    encoded = family.encode(
        {name: [row[name] for row in rows] for name in ("text", "text_pair")}, corpus.tokenizer
    )
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.collate([{name: value[n] for name, value in encoded.items()} for n in range(3)])
    texts = [[row[name] for row in rows] for name in ("text", "text_pair")]
    usual = corpus.tokenizer(*texts, padding=True, return_tensors="pt", return_token_type_ids=True)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**batches.inputs(batch)).logits, model(**usual).logits)


def test_the_longer_text_of_a_pair_is_cut_first_and_the_row_counted(loaded) -> None:
    _, corpus, _ = loaded
    one = {n: corpus.tokenizer("불만 " * n, add_special_tokens=False)["input_ids"] for n in (3, 9)}
    room = len(one[3]) * 2 + 3 + 2
    ids, types, cut = pair_ids(corpus.tokenizer, room, ["불만 " * 9, "불만 " * 3], ["불만 " * 3, "불만 " * 3])
    assert cut == [True, False]
    assert [len(row) for row in ids] == [room, room - 2]
    assert types[0].count(1) == len(one[3]) + 1  # the shorter one is whole, with the token after it
    told: list[str] = []
    experiment = paired_short(loaded[0].experiment)
    load_corpus(load_family(experiment), notify=told.append)
    assert any("40 truncated (100.0%)" in line for line in told), told


def paired_short(experiment):
    return experiment.with_({"tokenizer.encoder_max_len": 12})


def test_a_saved_tokenizer_gives_roberta_no_types(tiny, cpu, tmp_path) -> None:
    family = load_family(paired(tiny, "roberta"))
    corpus = load_corpus(family, notify=silent)
    corpus.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # as KLUE's has it
    family.export(family.load_model(corpus.tokenizer, cpu), corpus.tokenizer, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    logits = model(**AutoTokenizer.from_pretrained(tmp_path)("하나", "둘", return_tensors="pt")).logits
    assert logits.isfinite().all()


@pytest.mark.parametrize("architecture", ENCODERS)
def test_every_encoder_reads_pairs_with_the_token_types_that_it_has(architecture, tiny, cpu) -> None:
    family = load_family(paired(tiny, architecture))
    corpus = load_corpus(family, notify=silent)
    model = family.load_model(corpus.tokenizer, cpu)
    batches = family.batches(corpus.tokenizer, model)
    batch = batches.collate([corpus.train[row] for row in range(4)])
    # A type of 1 would be behind the end of RoBERTa's table, and an unknown argument to DistilBERT and ModernBERT.
    assert ("token_type_ids" in batch) == (architecture in ("bert", "electra"))
    assert any(1 in types for types in corpus.train["token_type_ids"])
    logits = model.eval()(**batches.inputs(batch)).logits
    assert logits.shape == (4, 3)
    assert logits.isfinite().all()


def test_pairs_keep_the_contract(tiny, cpu, tmp_path) -> None:
    check_family(paired(tiny), tmp_path, profile=cpu, runs=False)


def test_a_run_on_pairs_predicts_with_both_columns_and_refuses_a_table_with_one(tiny, cpu, tmp_path) -> None:
    experiment = paired(tiny, max_steps=2)
    run(RunRequest(experiment, cpu, tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    model = AutoModelForSequenceClassification.from_pretrained(folder.final_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder.final_model)
    rows = [(pair.text, pair.text_pair) for pair in sentence_pair_corpus()["test"][:3]]
    (tmp_path / "new.tsv").write_text(
        "\n".join("\t".join(row) for row in [("text", "text_pair"), *rows]), encoding="utf-8"
    )
    family = load_family(experiment)
    corpus = load_corpus(family, notify=silent)
    predicted = predict_rows(family, *family.load_exported(folder.final_model), corpus.dev)
    usual = tokenizer(*map(list, zip(*rows, strict=True)), padding=True, return_tensors="pt")
    assert "token_type_ids" in usual  # the saved tokenizer gives what the saved model reads
    with torch.no_grad():
        expected = model(**usual).logits.argmax(-1).tolist()
    where = {"profile": cpu, "progress": lambda done, all: None, "notify": silent}
    api.predict(folder.path, tmp_path / "new.tsv", tmp_path / "out.csv", **where)
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == [family.classes[place] for place in expected]
    assert {row["label"] for row in predicted} <= {*family.classes}

    (tmp_path / "one.csv").write_text("text\n글 하나\n", encoding="utf-8")
    with pytest.raises(UserError, match="no column 'text_pair'"):
        api.predict(folder.path, tmp_path / "one.csv", tmp_path / "no.csv", **where)


def test_a_tokenizer_that_runs_the_texts_together_is_told(tiny, monkeypatch) -> None:
    told: list[str] = []
    experiment = paired(tiny, "bert").with_({"model.architecture": "llama"})
    load_corpus(load_family(experiment, told.append), notify=silent)
    assert any("puts nothing between the two texts of a pair" in line for line in told)


def test_emotions_are_of_one_text(tiny) -> None:
    experiment = paired(tiny, family="trainables.emotion", best_metric="eval_macro_f1")
    family = load_family(experiment)
    assert "text_pair" not in [role.name for role in family.roles]
