"""What a scenario of the sample corpus says: who speaks, what is asked, and how it can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from trainables.samples.korean import Noun, Register, Verb

Exchange = tuple[str, ...]
"""Lines that start with their speaker: A asker, B answerer, C third person; X and Y are A and B in either
order, so that whoever did not speak last begins."""


class Ending(Enum):
    """How a request ends. In the last four an earlier answer is revised, and the later one holds."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TAKEN = "another thing offered and taken"
    DECLINED = "another thing offered and declined"
    WITHDRAWN = "accepted, then refused"
    PERSUADED = "refused, then accepted"
    AMENDED = "another thing taken, then a third one"
    MOVED = "accepted, then another thing offered and taken"


@dataclass(frozen=True)
class Relation:
    """Two people who talk, the speech level each uses to the other, and what they say besides."""

    asker: Register
    """Speech level of the one who asks."""
    answerer: Register
    """Speech level of the one who answers."""
    bystander: Register | None
    """Speech level, to the answerer, of a third person on the answerer's side; None where nobody else can be there, as
    on the telephone.
    """
    asker_opens: tuple[Exchange, ...]
    """Greetings that the asker begins."""
    answerer_opens: tuple[Exchange, ...]
    """Greetings that the answerer begins."""
    prompts: tuple[str, ...]
    """What the answerer says to let the asker speak."""
    chatter: tuple[Exchange, ...]
    """Talk that has nothing to do with the request; ``{decoy}`` names a day that means nothing."""
    pauses: tuple[Exchange, ...]
    """How the answerer wins time before the answer."""
    closings: tuple[Exchange, ...]
    """How they part."""
    calls: tuple[Exchange, ...] = ()
    """Greetings in which the first speaker says the second one's ``{name}``; empty where these people would not."""


_REFUSE = Verb("거절하다")


@dataclass(frozen=True)
class Scenario:
    """One kind of request, as data: the words that make it different from every other request.

    Every text is a template over the slots (see :mod:`trainables.samples.korean`). Slots are drawn together when one
    key names them: ``"day new alt"`` draws three different values, ``"alt2<alt<day"`` three in the order of the
    pool. Every scenario has the slots ``alt`` and ``alt2``: what may be offered instead.
    """

    topic: str
    """The topic column of the corpus."""
    relations: tuple[Relation, ...]
    """Who may have this conversation."""
    slots: Mapping[str, tuple[Noun, ...]]
    """Slot names to the pool they are drawn from."""
    key: str
    """The slot that the asker may name wrongly and then correct."""
    reasons: tuple[Verb, ...]
    """Why the asker asks."""
    asks: tuple[str, ...]
    """The request, as the asker says it."""
    asked: str
    """The request, as the summary tells it after asker, reason and answerer."""
    accepts: tuple[str, ...]
    """The answerer agrees."""
    agreed: Verb
    """What the answerer then agrees to do."""
    refusals: tuple[Verb, ...]
    """Why the answerer cannot."""
    hitches: tuple[Verb, ...]
    """Why the answerer would rather do something else; also what can be talked away."""
    offers: tuple[str, ...]
    """The question that offers ``{alt}``."""
    offered: Verb
    """The same offer, as the summary tells it."""
    settled: str
    """What the summary tells after 어렵다고 when the result is ``{alt2}``."""
    objections: tuple[Verb, ...]
    """Why the asker does not want ``{alt}``."""
    pleas: tuple[Verb, ...]
    """What the asker promises to change the answerer's mind."""
    amenders: str = "AB"
    """Who may ask for ``{alt2}`` after ``{alt}`` was agreed on: the asker A, the answerer B, or both."""
    denied: Verb = _REFUSE
    """How the summary calls a refusal."""
    why_questions: tuple[str, ...] = ()
    """The answerer asks for the reason; empty for the general questions."""
    details: tuple[Exchange, ...] = ()
    """Questions about personal data that do not matter for the summary."""


def nouns(words: str) -> tuple[Noun, ...]:
    """Return a pool of nouns from a text that separates them by commas."""
    return tuple(Noun(word.strip()) for word in words.split(","))


DAYS = nouns("월요일, 화요일, 수요일, 목요일, 금요일, 토요일, 일요일")
WEEKDAYS = DAYS[:5]
