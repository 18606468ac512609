"""The sample corpus of emotions: the same for one seed, unbalanced, with copies in training, and learnable."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import pytest

from dure.data.canonical import folded
from dure.errors import UserError
from trainables.samples.emotions import CLASSES, COPIED, MAX_TEXTS, emotion_corpus


@pytest.fixture(scope="module")
def corpus():
    return emotion_corpus()


def test_every_split_holds_the_emotions_in_their_shares(corpus) -> None:
    assert {split: len(rows) for split, rows in corpus.items()} == {"train": 2000, "dev": 300, "test": 300}
    for rows in corpus.values():
        counts = Counter(row.label for row in rows)
        assert counts == {label: len(rows) * share // 100 for label, share in CLASSES.items()}


def test_a_few_training_texts_stand_twice_with_one_label_and_none_in_two_splits(corpus) -> None:
    texts = {split: [folded(row.text) for row in rows] for split, rows in corpus.items()}
    copies = len(texts["train"]) - len({*texts["train"]})
    assert 0.5 * COPIED < copies / len(texts["train"]) <= COPIED
    assert len({*map(str, (row.text for row in corpus["train"]))}) > len({*texts["train"]})
    assert len({(folded(row.text), row.label) for row in corpus["train"]}) == len({*texts["train"]})
    for split in ("dev", "test"):
        assert len({*texts[split]}) == len(texts[split])
    assert not {*texts["train"]} & {*texts["dev"]} | {*texts["dev"]} & {*texts["test"]}
    assert not {*texts["train"]} & {*texts["test"]}
    assert len({row.id for rows in corpus.values() for row in rows}) == 2600


def test_one_seed_gives_one_corpus_in_every_process() -> None:
    script = (
        "import hashlib; from trainables.samples.emotions import emotion_corpus as corpus\n"
        "print(hashlib.sha256(repr(corpus(seed=7, num_train=200)).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "123"},
    ).stdout.strip()  # fmt: skip
    here = hashlib.sha256(repr(emotion_corpus(seed=7, num_train=200)).encode()).hexdigest()
    assert there == here
    assert emotion_corpus(seed=8, num_train=200) != emotion_corpus(seed=7, num_train=200)


@pytest.mark.parametrize("sizes", [{"num_dev": -1}, {"num_train": MAX_TEXTS + 1}])
def test_impossible_sizes_are_refused(sizes) -> None:
    with pytest.raises(UserError, match="sample corpus"):
        emotion_corpus(**sizes)


def test_content_tells_the_emotion_and_signs_alone_do_not(corpus) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, dev = corpus["train"], corpus["dev"]
    labels, expected = [row.label for row in train], [row.label for row in dev]
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    features = vectorizer.fit_transform([row.text for row in train])
    words = LogisticRegression(C=10, max_iter=500).fit(features, labels)
    assert 0.8 < words.score(vectorizer.transform([row.text for row in dev]), expected) < 0.99
    signs = [[row.text.count(sign) for sign in "ㅋㅠㅎ.!"] for row in (*train, *dev)]
    alone = LogisticRegression(max_iter=500).fit(signs[: len(train)], labels)
    assert alone.score(signs[len(train) :], expected) < 0.6
