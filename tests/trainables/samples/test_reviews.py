"""The sample corpus of reviews: the same for one seed, unbalanced, all different, and learnable from content."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections import Counter

import pytest

from dure.errors import UserError
from trainables.samples.experiences import DOMAINS
from trainables.samples.reviews import CLASSES, MAX_REVIEWS, review_corpus


@pytest.fixture(scope="module")
def corpus():
    return review_corpus()


def test_every_split_holds_the_classes_in_their_shares(corpus) -> None:
    assert {split: len(rows) for split, rows in corpus.items()} == {"train": 2000, "dev": 300, "test": 300}
    for rows in corpus.values():
        counts = Counter(row.label for row in rows)
        assert counts == {label: len(rows) * share // 100 for label, share in CLASSES.items()}


def test_no_text_or_id_stands_twice_within_or_among_splits(corpus) -> None:
    rows = [row for split in corpus.values() for row in split]
    assert len({row.text for row in rows}) == len({row.id for row in rows}) == len(rows)


def test_texts_are_finished_korean_sentences(corpus) -> None:
    for row in (row for split in corpus.values() for row in split):
        assert row.text[-1] in ".?"
        assert row.text == " ".join(row.text.split())
        assert not set(row.text) & set("{}[]|()")
        assert all("가" <= letter <= "힣" or letter in " .,?" for letter in row.text), row.text


def test_one_seed_gives_one_corpus_in_every_process() -> None:
    script = (
        "import hashlib; from trainables.samples.reviews import review_corpus as corpus\n"
        "print(hashlib.sha256(repr(corpus(seed=7, num_train=200)).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "123"},
    ).stdout.strip()  # fmt: skip
    here = hashlib.sha256(repr(review_corpus(seed=7, num_train=200)).encode()).hexdigest()
    assert there == here
    assert review_corpus(seed=8, num_train=200) != review_corpus(seed=7, num_train=200)


def test_writing_the_largest_corpus_takes_seconds() -> None:
    begun = time.monotonic()
    corpus = review_corpus(num_train=MAX_REVIEWS, num_dev=0, num_test=0)
    assert len({row.text for row in corpus["train"]}) == MAX_REVIEWS
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("sizes", [{"num_dev": -1}, {"num_train": MAX_REVIEWS + 1}])
def test_impossible_sizes_are_refused(sizes) -> None:
    with pytest.raises(UserError, match="sample corpus"):
        review_corpus(**sizes)


def test_judgements_of_both_kinds_stand_in_every_class(corpus) -> None:
    stems = {
        kind: {
            word.removesuffix("다")[:3]
            for domain in DOMAINS
            for a in domain.aspects
            for word in getattr(a, kind)
        }
        for kind in ("good", "bad")
    }
    for label in CLASSES:
        texts = [row.text for row in corpus["train"] if row.label == label]
        for words in stems.values():
            assert sum(any(word in text for word in words) for text in texts) > 0.1 * len(texts)


def test_content_tells_the_class_and_length_does_not(corpus) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, dev = corpus["train"], corpus["dev"]
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
    features = vectorizer.fit_transform([row.text for row in train])
    labels, expected = [row.label for row in train], [row.label for row in dev]
    words = LogisticRegression(C=10, max_iter=500).fit(features, labels)
    assert words.score(vectorizer.transform([row.text for row in dev]), expected) > 0.9
    length = LogisticRegression(max_iter=500).fit([[len(row.text)] for row in train], labels)
    assert length.score([[len(row.text)] for row in dev], expected) < 0.6
