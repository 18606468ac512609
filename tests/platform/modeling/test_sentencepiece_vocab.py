"""KoBERT's kind of tokenizer, against sentencepiece's own pieces looked up in ``vocab.txt``."""

from __future__ import annotations

import json
import random
import unicodedata

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, BertModel

from dure.config.schema import Experiment
from dure.errors import UserError
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.modeling.loading import load_tokenizer
from dure.modeling.sentencepiece_vocab import (
    IDS_FILE,
    PIECES_FILE,
    find_sentencepiece_vocab,
    load_sentencepiece_vocab,
)
from trainables.samples.emotions import emotion_corpus

CONTROL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "오늘 시험에 합격해서 정말 기뻤어요.",
    "  앞뒤와\n사이의\t\t공백  ",
    "모르는 글자 쀍뛟 둘과 🙂🙂 그림, 漢字",
    "Café ｆｕｌｌ ½ ① e\u0301 ㅋㅋㅋ ㅠㅠ",
    "``따옴표''와 '하나'",
    "값은 1,000원, 2,500원입니다",
    "",
    unicodedata.normalize("NFD", "풀어 쓴 한글도 같아요"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as KoBERT is one: a sentencepiece model, a vocab.txt in another order, and no tokenizer.json."""
    folder = tmp_path_factory.mktemp("kobert")
    texts = [row.text for row in emotion_corpus(num_dev=0, num_test=0)["train"]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, *(f"값은 {n},{n}00원, cafe" for n in range(200))]),
        model_prefix=str(folder / "pieces"), vocab_size=600, character_coverage=0.9995, minloglevel=2,
    )  # fmt: skip
    (folder / "pieces.model").rename(folder / PIECES_FILE)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / PIECES_FILE))
    pieces = [
        processor.id_to_piece(place) for place in range(len(processor)) if not processor.is_control(place)
    ]
    pieces = [piece for piece in pieces if piece != "<unk>"]
    random.Random(0).shuffle(pieces)
    (folder / IDS_FILE).write_text("\n".join([*CONTROL, *pieces]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False, "model_max_length": 512, "mask_token": {"content": "[MASK]"}}),
        encoding="utf-8",
    )
    BertConfig(vocab_size=len(CONTROL) + len(pieces), num_hidden_layers=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    """What the checkpoint's own code does, from its description: pieces of sentencepiece, ids of vocab.txt."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / PIECES_FILE))
    lines = (folder / IDS_FILE).read_text(encoding="utf-8").splitlines()
    ids = {line: place for place, line in enumerate(lines)}

    def encode(text: str) -> list[int]:
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        pieces = []
        for piece in processor.encode(text, out_type=str):
            if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
                inner = processor.encode(piece[:-1].replace("▁", ""), out_type=str)
                if piece[0] != "▁" and inner[0][0] == "▁":
                    inner = inner[1:] if inner[0] == "▁" else [inner[0][1:], *inner[1:]]
                pieces += [*inner, ","]
            else:
                pieces.append(piece)
        return [ids["[CLS]"], *(ids.get(piece, ids["[UNK]"]) for piece in pieces), ids["[SEP]"]]

    return encode


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_sentencepiece_vocab(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_pieces_in_vocab_txt(text, tokenizer, reference) -> None:
    assert tokenizer(text)["input_ids"] == reference(text)


def test_ids_agree_on_a_whole_corpus(tokenizer, reference) -> None:
    texts = [row.text for row in emotion_corpus(seed=7, num_train=0, num_dev=0, num_test=500)["test"]]
    found, expected = tokenizer(texts)["input_ids"], [reference(text) for text in texts]
    # Where two cuts are equally likely (.. and ., or . and ..) the last bit of a sum decides.
    assert [sorted(row) for row in found] == [sorted(row) for row in expected]
    assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(text=st.text(alphabet="가나다오늘시험 ㅋㅠ.,!?abcÉ1🙂쀍\n\u3000'`", max_size=30))
def test_ids_agree_on_any_text(text, tokenizer, reference) -> None:
    assert sorted(tokenizer(text)["input_ids"]) == sorted(reference(text))


def test_unknown_letters_are_unknown_and_control_tokens_keep_their_ids(tokenizer) -> None:
    assert tokenizer.convert_tokens_to_ids(CONTROL) == [0, 1, 2, 3, 4]
    assert tokenizer("쀍")["input_ids"].count(0) == 1
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 512
    pair = tokenizer("오늘", "내일")
    assert pair["input_ids"].count(3) == 2
    assert pair["token_type_ids"][-1] == 1


def test_what_is_saved_is_read_back_without_the_model_of_pieces(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert (
        again.decode(again("오늘 정말 기뻤어요.")["input_ids"], skip_special_tokens=True)
        == "오늘 정말 기뻤어요."
    )
    assert find_sentencepiece_vocab(str(tmp_path), "main") is None


def test_a_checkpoint_is_recognised_by_its_files_and_trains(folder, reference, tiny, cpu) -> None:
    values = tiny("bert", "full", family="trainables.emotion").model_dump()
    values["model"] = {"checkpoint": str(folder)}
    values["rehearsal"]["enabled"] = False
    experiment = Experiment.model_validate(values)
    tokenizer = load_tokenizer(experiment, lambda: iter(()))
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == reference(text)
    config = BertConfig.from_pretrained(
        folder, hidden_size=32, num_attention_heads=2, intermediate_size=32, num_hidden_layers=1
    )
    BertModel(config).save_pretrained(folder)
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    assert family.load_model(corpus.tokenizer, cpu).config.num_labels == 5


@pytest.mark.parametrize(
    ("content", "problem"), [("[UNK]\n[PAD]\n", "no line '\\[CLS\\]'"), ("a\nb\na\n", "'a' stands twice")]
)
def test_a_broken_vocabulary_is_refused_with_its_file(folder, tmp_path, content, problem) -> None:
    (tmp_path / PIECES_FILE).write_bytes((folder / PIECES_FILE).read_bytes())
    (tmp_path / IDS_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=problem) as caught:
        load_sentencepiece_vocab(tmp_path)
    assert caught.value.where.endswith(IDS_FILE)


def test_a_file_that_is_no_model_is_refused(tmp_path) -> None:
    (tmp_path / PIECES_FILE).write_bytes(b"no model")
    with pytest.raises(UserError, match=r"cannot be read|no Unigram"):
        load_sentencepiece_vocab(tmp_path)
