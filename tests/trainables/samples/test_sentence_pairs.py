"""The sample corpus of sentence pairs: the same for one seed, balanced, and not to be told from one sentence."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from dure.errors import UserError
from trainables.samples.experiences import DOMAINS
from trainables.samples.sentence_pairs import MAX_PAIRS, RELATIONS, sentence_pair_corpus

ASPECTS = {aspect.name for domain in DOMAINS for aspect in domain.aspects}


def clause(aspect: str) -> str:
    """How a clause on an aspect begins; "음식이 나오는 속도" is another one than "음식"."""
    return rf"(?:^|고 ){aspect}(?:이|가) (?!나오는)"


@pytest.fixture(scope="module")
def corpus():
    return sentence_pair_corpus()


def test_pairs_are_different_and_relations_balanced(corpus) -> None:
    rows = [row for split in corpus.values() for row in split]
    assert len({(row.text, row.text_pair) for row in rows}) == len({row.id for row in rows}) == len(rows)
    for split in corpus.values():
        counts = Counter(row.relation for row in split)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_relation_follows_from_what_both_sentences_say(corpus) -> None:
    for row in corpus["train"]:
        (thing, said), (other_thing, other) = (
            re.split("[은는] ", text.rstrip("."), maxsplit=1) for text in (row.text, row.text_pair)
        )
        (aspect,) = (name for name in ASPECTS if re.match(clause(name), other))
        is_shared = re.search(clause(aspect), said) is not None
        assert (row.similarity % 2 == 1) == (thing == other_thing)
        assert (row.similarity >= 2) == is_shared
        if row.relation != "중립":
            assert thing == other_thing
            assert is_shared


def test_no_sentence_alone_gives_the_relation_away(corpus) -> None:
    for side in ("text", "text_pair"):
        shares = [
            sum("지 않" in getattr(row, side) for row in corpus["train"] if row.relation == relation)
            / sum(row.relation == relation for row in corpus["train"])
            for relation in RELATIONS
        ]
        assert max(shares) - min(shares) < 0.08


def test_one_seed_gives_one_corpus_and_too_many_pairs_are_refused() -> None:
    sizes = {"num_train": 50, "num_dev": 5, "num_test": 5}
    assert sentence_pair_corpus(seed=7, **sizes) == sentence_pair_corpus.__wrapped__(seed=7, **sizes)
    assert sentence_pair_corpus(seed=8, **sizes) != sentence_pair_corpus(seed=7, **sizes)
    with pytest.raises(UserError, match="sizes"):
        sentence_pair_corpus(num_train=MAX_PAIRS)
