"""The sample corpus: Korean dialogues with summaries, written from dure's own grammar and the same for one seed.

The grammar is laid out in this folder: :mod:`~trainables.samples.korean` inflects,
:mod:`~trainables.samples.scenarios` says what people ask of each other, :mod:`~trainables.samples.relations` and
:mod:`~trainables.samples.phrases` how they speak; :mod:`~trainables.samples.story` draws and summarises what happens,
and :mod:`~trainables.samples.telling` tells it.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from trainables.samples.corpus_files import sizes_of
from trainables.samples.scenario import Ending, Scenario
from trainables.samples.scenarios import SCENARIOS
from trainables.samples.story import (
    draw_story,
    may_have_third,
    outcome_template,
    request_template,
    summarise,
)
from trainables.samples.telling import tell

MAX_DIALOGUES = 20_000
"""The most dialogues of one corpus: far below the number of stories, so that drawing new ones stays fast."""


@dataclass(frozen=True)
class Dialogue:
    """One row of the corpus."""

    fname: str
    """The row's id, such as ``train_0``."""
    dialogue: str
    """Turns ``#Person1#: …``, one per line."""
    summary: str
    """One or two sentences in plain written style."""
    topic: str
    """What the dialogue is about, in a few words."""


@cache
def dialogue_corpus(
    *, seed: int = 42, num_train: int = 2600, num_dev: int = 200, num_test: int = 200
) -> dict[str, list[Dialogue]]:
    """Write the corpus: all dialogues and all summaries are different, within a split and among splits.

    The same seed gives the same corpus, in every process and on every machine.

    Returns:
        The splits ``train``, ``dev`` and ``test``.

    Raises:
        UserError: A number is negative, or they are more than :data:`MAX_DIALOGUES` together.
    """
    sizes = sizes_of(num_train, num_dev, num_test, most=MAX_DIALOGUES)
    rng = random.Random(seed)
    seen: set[str] = set()
    return {
        split: [_new_dialogue(rng, f"{split}_{number}", seen) for number in range(size)]
        for split, size in sizes.items()
    }


def _new_dialogue(rng: random.Random, fname: str, seen: set[str]) -> Dialogue:
    while True:
        story = draw_story(rng)
        dialogue, summary = tell(story), summarise(story)
        if dialogue not in seen and summary not in seen:
            seen.update((dialogue, summary))
            return Dialogue(fname, dialogue, summary, story.scenario.topic)


def num_summaries(scenarios: Iterable[Scenario] = SCENARIOS) -> int:
    """Count the different summaries that the grammar can write about these scenarios.

    Counted are who asks (first or second speaker), the request, the reason, the ending and what it tells. Not counted
    are wording, layout, a name in place of ``#Person2#``, and slots that only a reason or a refusal names, so
    the true number is larger.
    """
    return sum(
        2 * _num_told(scenario, ending, third=third)  # either of the two may be the asker
        for scenario in scenarios
        for ending in Ending
        for third in ((False, True) if _third_is_told(scenario, ending) else (False,))
    )


def _third_is_told(scenario: Scenario, ending: Ending) -> bool:
    return ending is Ending.PERSUADED and any(
        may_have_third(relation, ending) for relation in scenario.relations
    )


def _num_told(scenario: Scenario, ending: Ending, *, third: bool) -> int:
    """Count the ways to fill the slots and clauses that the summary of this ending names."""
    choices = {
        "reason": len(scenario.reasons),
        "refusal": len(scenario.refusals),
        "hitch": len(scenario.hitches),
        "objection": len(scenario.objections),
        "plea": len(scenario.pleas),
    }
    told = _fields(request_template(scenario)) | _fields(outcome_template(scenario, ending, third=third))
    if "agreed" in told:
        told |= _fields(scenario.agreed.phrase)
    if "offered" in told:
        told |= _fields(scenario.offered.phrase)
    count = math.prod(number for name, number in choices.items() if name in told)
    for names, pool in scenario.slots.items():
        used = len(told.intersection(names.replace("<", " ").split()))
        count *= math.comb(len(pool), used) if "<" in names else math.perm(len(pool), used)
    return count


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}
