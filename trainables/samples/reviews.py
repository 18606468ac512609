"""The sample corpus for classification: what customers write, in Korean, and what kind of message it is.

Written from dure's own grammar and the same for one seed. Single words do not give the class away: every
judgement stands in every class, praise concedes faults and complaints concede merits (…지만 …), fears and hopes
turn out wrong (…까 봐 걱정했는데 …지 않았어요), and any predicate may be negated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from trainables.samples.corpus_files import labels_in, sizes_of
from trainables.samples.experiences import DOMAINS, Aspect, Domain
from trainables.samples.korean import Noun, Verb, did

CLASSES = {"칭찬": 45, "불만": 25, "문의": 15, "요청": 10, "제안": 5}
"""Praise, complaint, question, request and suggestion, with their shares of every split in percent."""
MAX_REVIEWS = 20_000
"""The most reviews of one corpus: few enough that drawing new suggestions, the rarest, stays fast."""

_ENDINGS = ("아요", "습니다", "네요")
_TIMES = ("", "어제 ", "지난주에 ", "며칠 전에 ", "주말에 ", "이번에 ", "처음으로 ", "오랜만에 ")
_PLEASED = (
    "마음에 들다",
    "만족하다",
    "주변에도 추천하다",
    "후회하지 않다",
    "실망하지 않다",
    "기분이 나쁘지 않다",
)
_DISPLEASED = (
    "마음에 들지 않다", "만족하지 못하다", "주변에는 추천하지 않다", "후회하다", "실망하다", "기분이 좋지 않다",
)  # fmt: skip


@dataclass(frozen=True)
class Review:
    """One row of the corpus."""

    id: str
    """The row's id, such as ``train_0``."""
    text: str
    """One to three sentences."""
    label: str
    """One of :data:`CLASSES`."""


@cache
def review_corpus(
    *, seed: int = 42, num_train: int = 2000, num_dev: int = 300, num_test: int = 300
) -> dict[str, list[Review]]:
    """Write the corpus: all texts are different, within a split and among splits.

    The same seed gives the same corpus, in every process and on every machine.

    Returns:
        The splits ``train``, ``dev`` and ``test``, each with the classes in their shares, in random order.

    Raises:
        UserError: A number is negative, or they are more than :data:`MAX_REVIEWS` together.
    """
    sizes = sizes_of(num_train, num_dev, num_test, most=MAX_REVIEWS)
    rng = random.Random(seed)
    seen: set[str] = set()
    return {split: _split(rng, split, size, seen) for split, size in sizes.items()}


def _split(rng: random.Random, split: str, size: int, seen: set[str]) -> list[Review]:
    return [
        Review(f"{split}_{number}", _new_text(rng, label, seen), label)
        for number, label in enumerate(labels_in(CLASSES, size, rng))
    ]


def _new_text(rng: random.Random, label: str, seen: set[str]) -> str:
    while True:
        message = _Message(rng, rng.choice(DOMAINS))
        text = _WRITERS[label](message)
        if text not in seen:
            seen.add(text)
            return text


class _Message:
    """What one customer may say: draws from one domain, and never judges one aspect twice."""

    def __init__(self, rng: random.Random, domain: Domain) -> None:
        self.rng = rng
        self.domain = domain
        self.aspects = rng.sample(domain.aspects, 2)
        self.ending = rng.choice(_ENDINGS)
        self.thing = Noun(rng.choice(domain.things))

    def pick(self, choices: Sequence[str]) -> str:
        return self.rng.choice(choices)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def opening(self) -> str:
        """How the customer came to know the thing, or nothing."""
        if self.chance(0.35):
            return ""
        met = f"{format(self.thing, self.domain.particle)} {did(self.domain.met):는데}"
        return f"{self.pick(_TIMES)}{met} "

    def noun(self, place: int) -> Noun:
        return Noun(self.aspects[place].name)

    def judged(self, place: int, *, good: bool) -> Verb:
        """A judgement on an aspect in the past; one in four says it by negating the contrary."""
        aspect = self.aspects[place]
        if self.chance(0.25):
            return _negated(self.pick(_words(aspect, good=not good)))
        return did(self.pick(_words(aspect, good=good)))

    def opinion(self, *, good: bool) -> str:
        """Sentences whose sum is good, or bad; they may concede the contrary before."""
        a, b = self.noun(0), self.noun(1)
        verdict = did(self.pick(_PLEASED if good else _DISPLEASED))
        after = f" 결국 {verdict:{self.ending}}." if self.chance(0.3) else ""
        mine, other = self.judged(1, good=good), self.judged(0, good=not good)
        match self.rng.randrange(6):
            case 0:
                return f"{self.opening()}{b:이} {mine:{self.ending}}.{after}"
            case 1:
                also = self.judged(0, good=good)
                return f"{self.opening()}{a:도} {also:고} {b:도} {mine:{self.ending}}.{after}"
            case 2:
                return f"{self.opening()}{a:은} {other:지만} {b:은} {mine:{self.ending}}.{after}"
            case 3:
                return f"{self.opening()}{a:은} {other:지만} {b:이} {mine:아서} 결국 {verdict:{self.ending}}."
            case 4:
                feeling = did("기대하다" if not good else "걱정하다")
                return (
                    f"{self.opening()}{a:이} {other:아서} {feeling:지만} {b:은} {mine:{self.ending}}.{after}"
                )
            case _:
                return f"{self.turned_out(good=good)}{after}"

    def turned_out(self, *, good: bool) -> str:
        """A fear that came to nothing, or a hope that did."""
        word = self.pick(_words(self.aspects[0], good=not good))
        expected = "을까 봐 걱정했는데" if good else "을 줄 알았는데"
        return f"{self.noun(0):이} {Verb(word):{expected}} {_negated(word):{self.ending}}."

    def hearsay(self) -> str:
        """A judgement of others, good or bad."""
        return f"{self.noun(0):이} {self.judged(0, good=self.chance(0.5)):다고} 들었는데 "


def _words(aspect: Aspect, *, good: bool) -> tuple[str, ...]:
    return aspect.good if good else aspect.bad


def _negated(word: str) -> Verb:
    return did(f"{word.removesuffix('다')}지 않다")


def _praise(message: _Message) -> str:
    return message.opinion(good=True)


def _complaint(message: _Message) -> str:
    """A complaint, which may say that it asks for nothing."""
    text = message.opinion(good=False)
    if message.chance(0.15):
        text += (
            f" {Verb(message.pick(message.domain.services)).phrase.removesuffix('주다')}달라는 말은 아닙니다."
        )
    return text


def _question(message: _Message) -> str:
    """A question of fact, after nothing, hearsay or an opinion of any kind."""
    fact = Verb(message.pick(message.domain.facts))
    before = ""
    match message.rng.randrange(3):
        case 0:
            before = message.hearsay()
        case 1:
            before = f"{message.opinion(good=message.chance(0.6))} 그런데 "
    asked = f"{fact:는지} 궁금합니다." if message.chance(0.4) else f"{fact:나요}?"
    subject = "" if message.chance(0.3) else f"{message.thing:은} "
    return f"{before}{subject}{asked}"


def _request(message: _Message) -> str:
    """A service that is asked for, with a reason or without one, contented or not."""
    service = Verb(message.pick(message.domain.services))
    asked = message.pick(
        [
            f"{service:으세요}.",
            f"{service:으십시오}.",
            f"{service:을 수 있을까요}?",
            f"{did(service.phrase):으면 합니다}.",
        ]
    )
    match message.rng.randrange(4):
        case 0:
            return f"{message.opening()}{asked}"
        case 1:
            return f"{message.opening()}{message.noun(0):이} {message.judged(0, good=False):으니} {asked}"
        case 2:
            liked = message.judged(0, good=True)
            disliked = message.judged(1, good=False)
            return f"{message.noun(0):은} {liked:지만} {message.noun(1):이} {disliked:으니} {asked}"
        case _:
            return f"{message.opinion(good=message.chance(0.5))} {asked}"


def _suggestion(message: _Message) -> str:
    """What could be better, after nothing or an opinion of any kind."""
    better = f"더 {message.pick(message.aspects[1].good)}"
    less = f"덜 {message.pick(message.aspects[1].bad)}"
    wish = Verb(message.pick([better, less, *message.domain.ideas]))
    subject = f"{message.noun(1):이} " if wish.phrase in (better, less) else ""
    said = message.pick(
        [
            f"{subject}{wish:으면} 좋겠어요.",
            f"{subject}{wish:으면} 어떨까요?",
            f"{subject}{wish:으면} 더 좋을 것 같습니다.",
        ]
    )
    if message.chance(0.4):
        return f"{message.opinion(good=message.chance(0.6))} {said}"
    return (
        f"{message.opening()}{message.noun(0):은} {message.judged(0, good=message.chance(0.6)):지만} {said}"
    )


_WRITERS: dict[str, Callable[[_Message], str]] = {
    "칭찬": _praise,
    "불만": _complaint,
    "문의": _question,
    "요청": _request,
    "제안": _suggestion,
}
