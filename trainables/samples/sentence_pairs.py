"""The sample corpus of sentence pairs: what one Korean sentence about a thing says of another one.

Written from the grammar of the reviews and the same for one seed. Neither sentence gives the answer away by itself:
both may negate, and the second says any word of its aspect whatever the relation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Literal

from trainables.samples.corpus_files import sizes_of
from trainables.samples.experiences import DOMAINS, Aspect
from trainables.samples.korean import Noun, Verb, did

RELATIONS = ("함의", "중립", "모순")
"""The first sentence entails the second, is silent on it, or contradicts it."""
MAX_PAIRS = 20_000
"""The most pairs of one corpus: few enough that drawing new ones stays fast."""

_ENDINGS = ("아요", "습니다", "네요")


@dataclass(frozen=True)
class SentencePair:
    """One row of the corpus."""

    id: str
    """The row's id, such as ``train_0``."""
    text: str
    """A sentence that judges two aspects of a thing."""
    text_pair: str
    """A sentence that judges one aspect of this or another thing."""
    relation: str
    """One of :data:`RELATIONS`."""
    similarity: int
    """From 0 to 5: 1 for the same thing, 2 for an aspect that both judge, 2 for the same judgement of it."""

    def cells(self, label: Literal["relation", "similarity"]) -> dict[str, str]:
        """Return the row with one of its targets as ``label``."""
        target = self.relation if label == "relation" else str(self.similarity)
        return {"id": self.id, "text": self.text, "text_pair": self.text_pair, "label": target}


@cache
def sentence_pair_corpus(
    *, seed: int = 42, num_train: int = 2000, num_dev: int = 300, num_test: int = 300
) -> dict[str, list[SentencePair]]:
    """Write the corpus: all pairs are different, within a split and among splits.

    The same seed gives the same corpus, in every process and on every machine.

    Returns:
        The splits ``train``, ``dev`` and ``test``; a third of each has each relation.

    Raises:
        UserError: A number is negative, or they are more than :data:`MAX_PAIRS` together.
    """
    sizes = sizes_of(num_train, num_dev, num_test, most=MAX_PAIRS)
    rng = random.Random(seed)
    seen: set[tuple[str, str]] = set()
    return {split: _split(rng, split, size, seen) for split, size in sizes.items()}


def _split(rng: random.Random, split: str, size: int, seen: set[tuple[str, str]]) -> list[SentencePair]:
    relations = [RELATIONS[number % len(RELATIONS)] for number in range(size)]
    rng.shuffle(relations)
    rows = []
    while len(rows) < size:
        row = _drawn(rng, f"{split}_{len(rows)}", relations[len(rows)])
        if (row.text, row.text_pair) not in seen:
            seen.add((row.text, row.text_pair))
            rows.append(row)
    return rows


def _drawn(rng: random.Random, row_id: str, relation: str) -> SentencePair:
    """Draw the second sentence first, so that it is the same whatever the relation."""
    domain = rng.choice(DOMAINS)
    thing, other_thing = rng.sample(domain.things, 2)
    aspect, first, second = rng.sample(domain.aspects, 3)
    word, negates = rng.choice(aspect.good + aspect.bad), rng.random() < 0.5
    said = _sentence(thing, [(aspect, word, negates)], rng.choice(_ENDINGS))
    judged = [_judgement(rng, first), _judgement(rng, second)]
    is_same_thing = relation != "중립" or rng.random() < 0.5
    agrees = relation == "함의" or (relation == "중립" and rng.random() < 0.5)
    # What is neutral speaks of another thing, or of other aspects.
    is_shared = relation != "중립" or not is_same_thing
    if is_shared:
        judged[rng.randrange(2)] = (aspect, word, negates == agrees)
    text = _sentence(thing if is_same_thing else other_thing, judged, rng.choice(_ENDINGS))
    similarity = is_same_thing + 2 * is_shared + 2 * (is_shared and agrees)
    return SentencePair(row_id, text, said, relation, similarity)


_Judgement = tuple[Aspect, str, bool]
"""An aspect, the word that is said of it, and whether it is negated."""


def _judgement(rng: random.Random, aspect: Aspect) -> _Judgement:
    return aspect, rng.choice(aspect.good + aspect.bad), rng.random() < 0.5


def _sentence(thing: str, judged: list[_Judgement], ending: str) -> str:
    """Return a sentence on a thing, whose last clause has the ending."""
    clauses = [
        f"{Noun(aspect.name):이} {_predicate(word, negates=negates):{'고' if place + 1 < len(judged) else ending}}"
        for place, (aspect, word, negates) in enumerate(judged)
    ]
    return f"{Noun(thing):은} {' '.join(clauses)}."


def _predicate(word: str, *, negates: bool) -> Verb:
    return did(f"{word.removesuffix('다')}지 않다" if negates else word)
