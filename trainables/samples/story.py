"""Stories of the sample corpus: what happens, drawn from the grammar, and its summary.

A :class:`Story` holds every fact. :func:`summarise` and :func:`trainables.samples.telling.tell` read only the story,
never each other, so the summary follows from what happens and not from where in the dialogue it is said.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from trainables.samples.korean import Noun, Verb
from trainables.samples.scenario import DAYS, Ending, Relation, Scenario, nouns
from trainables.samples.scenarios import SCENARIOS

NAMES = nouns("민수, 지훈, 서연, 유진, 지은, 수빈")

_OUTCOMES = {
    Ending.ACCEPTED: "{answerer:은} {agreed:기로} 했다.",
    Ending.REFUSED: "{answerer:은} {refusal:아서} {denied:았다}.",
    Ending.TAKEN: "{answerer:은} {hitch:아서} {offered:았고} {asker:은} 받아들였다.",
    Ending.DECLINED: "{answerer:은} {hitch:아서} {offered:았지만} {asker:은} {objection:아서} 거절했다.",
    Ending.WITHDRAWN: "{answerer:은} 승낙했다가 {refusal:아서} 결국 {denied:았다}.",
    Ending.PERSUADED: "{answerer:은} {denied:았다가} {asker:이} {plea:겠다고} 하자 {agreed:기로} 했다.",
    Ending.AMENDED: "{answerer:은} {hitch:아서} 어렵다고 ",
    Ending.MOVED: "{answerer:은} 승낙했다가 {hitch:아서} {offered:았고} {asker:은} 받아들였다.",
}
_PERSUADED_BY_THIRD = "{answerer:은} {denied:았다가} {third:이} 부탁하자 {agreed:기로} 했다."


def outcome_template(scenario: Scenario, ending: Ending, *, third: bool) -> str:
    """Return the template of the sentence in which a summary tells how the request ended."""
    if ending is Ending.AMENDED:
        return _OUTCOMES[ending] + scenario.settled + "."
    if ending is Ending.PERSUADED and third:
        return _PERSUADED_BY_THIRD
    return _OUTCOMES[ending]


def request_template(scenario: Scenario) -> str:
    """Return the template of the sentence in which a summary tells what was asked of whom, and why."""
    return "{asker:은} {reason:아서} {answerer}에게 " + scenario.asked + "."


@dataclass(frozen=True)
class Layout:
    """How a story is told: everything about the dialogue that the summary must not depend on, and who begins."""

    asker_first: bool
    """The one who asks speaks first and so is ``#Person1#``."""
    reason: str
    """Where the reason stands: ``before`` the request, in one sentence ``with`` it, ``after`` it when the answerer has
    asked why, or ``late``, in the asker's reply to the first answer.
    """
    opening: bool
    """The dialogue begins with a greeting."""
    named: bool
    """The first speaker greets the second by name, and the summary then uses the name."""
    corrected: bool
    """The asker first says a wrong value of the scenario's key, then the right one."""
    chatter: tuple[str, ...]
    """Places with talk beside the point: of ``start``, ``details``, ``pause``, ``change``, ``end``."""
    closing: bool
    """The dialogue ends with a farewell."""
    wording: int
    """Chooses among the ways to say the same thing."""


@dataclass(frozen=True)
class Story:
    """A request and its fate."""

    scenario: Scenario
    """What kind of request."""
    relation: Relation
    """Who asks whom."""
    facts: dict[str, Noun | Verb]
    """What fills every slot: nouns, and clauses that may name nouns by their slots, by name."""
    ending: Ending
    """How it ends."""
    third: bool
    """``#Person3#`` brings the change, where the ending allows it."""
    layout: Layout
    """How it is told."""

    @cached_property
    def told(self) -> dict[str, Noun | Verb]:
        """Return all facts, the clauses with their nouns in them."""
        return {
            name: fact.filled(self.facts) if isinstance(fact, Verb) else fact
            for name, fact in self.facts.items()
        }

    @property
    def people(self) -> dict[str, Noun]:
        """Return how the summary calls asker, answerer and third person."""
        first, second = Noun("#Person1#"), Noun("#Person2#")
        if self.layout.named:
            second = Noun(self.facts["name"])
        asker, answerer = (first, second) if self.layout.asker_first else (second, first)
        return {"asker": asker, "answerer": answerer, "third": Noun("#Person3#")}


def may_have_third(relation: Relation, ending: Ending) -> bool:
    """Say whether a third person can bring the change of this ending among these people."""
    return relation.bystander is not None and ending in (Ending.WITHDRAWN, Ending.PERSUADED)


def draw_story(rng: random.Random, scenario: Scenario | None = None) -> Story:
    """Draw one story of the grammar, of the given scenario or of any."""
    scenario = scenario or rng.choice(SCENARIOS)
    relation = rng.choice(scenario.relations)
    ending = rng.choice(tuple(Ending))
    third = may_have_third(relation, ending) and rng.random() < 0.5
    return Story(scenario, relation, _draw_facts(rng, scenario), ending, third, _draw_layout(rng, relation))


def _draw_facts(rng: random.Random, scenario: Scenario) -> dict[str, Noun | Verb]:
    facts: dict[str, Noun | Verb] = {}
    for names, pool in scenario.slots.items():
        ordered = "<" in names
        wanted = names.replace("<", " ").split()
        places = rng.sample(range(len(pool)), len(wanted))
        facts.update(
            zip(wanted, (pool[place] for place in (sorted(places) if ordered else places)), strict=True)
        )
        if scenario.key in wanted:
            spare = [value for value in pool if value not in facts.values()]
            facts["wrong"] = rng.choice(spare)
    facts["right"] = facts[scenario.key]
    facts["decoy"] = rng.choice([day for day in DAYS if day not in facts.values()])
    facts["name"], facts["friend"] = rng.sample(NAMES, 2)
    for name, clauses in (
        ("reason", scenario.reasons),
        ("refusal", scenario.refusals),
        ("hitch", scenario.hitches),
        ("objection", scenario.objections),
        ("plea", scenario.pleas),
    ):
        facts[name] = rng.choice(clauses)
    facts |= {"agreed": scenario.agreed, "offered": scenario.offered, "denied": scenario.denied}
    return facts


def _draw_layout(rng: random.Random, relation: Relation) -> Layout:
    opening = rng.random() < 0.6
    places = ("start", "details", "pause", "change", "end")
    return Layout(
        asker_first=rng.random() < 0.5,
        reason=rng.choice(("before", "with", "after", "late")),
        opening=opening,
        named=opening and bool(relation.calls) and rng.random() < 0.4,
        corrected=rng.random() < 0.25,
        chatter=tuple(rng.sample(places, rng.choice((0, 1, 1, 2, 2, 3)))),
        closing=rng.random() < 0.5,
        wording=rng.getrandbits(32),
    )


def summarise(story: Story) -> str:
    """Return the two sentences that tell the story: what was asked of whom and why, and how it ended."""
    template = f"{request_template(story.scenario)} {outcome_template(story.scenario, story.ending, third=story.third)}"
    return template.format_map({**story.told, **story.people})
