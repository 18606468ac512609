"""The sample corpus of preferences: a dialogue, its summary, and one that tells a person, a thing or the outcome wrong.

Both summaries are written by the grammar of the dialogues, and mistakes are drawn so that either of two stories may be
the other's mistake: no word, order or length tells the right summary from the wrong one, only the dialogue does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from trainables.samples.corpus_files import sizes_of
from trainables.samples.korean import Noun
from trainables.samples.scenario import Ending
from trainables.samples.story import Story, draw_story, may_have_third, summarise
from trainables.samples.telling import tell

MAX_PREFERENCES = 20_000
"""The most rows of one corpus: far below the number of stories, so that drawing new ones stays fast."""


@dataclass(frozen=True)
class Preference:
    """One row of the corpus."""

    id: str
    """The row's id, such as ``train_0``."""
    prompt: str
    """A dialogue, one turn per line."""
    chosen: str
    """Its summary."""
    rejected: str
    """A summary that tells one thing wrong."""
    wrong: str
    """What that is: ``person``, ``thing`` or ``outcome``."""


@cache
def preference_corpus(
    *, seed: int = 42, num_train: int = 2600, num_dev: int = 200, num_test: int = 200
) -> dict[str, list[Preference]]:
    """Write the corpus: all dialogues and all summaries that are right are different, within and among splits.

    The same seed gives the same corpus, in every process and on every machine.

    Returns:
        The splits ``train``, ``dev`` and ``test``; each mistake in a third of the rows.

    Raises:
        UserError: A number is negative, or they are more than :data:`MAX_PREFERENCES` together.
    """
    sizes = sizes_of(num_train, num_dev, num_test, most=MAX_PREFERENCES)
    rng = random.Random(seed)
    seen: set[str] = set()
    return {split: _split(rng, split, size, seen) for split, size in sizes.items()}


def _split(rng: random.Random, split: str, size: int, seen: set[str]) -> list[Preference]:
    rows: list[Preference] = []
    mistakes = list(_MISTAKES)
    while len(rows) < size:
        wrong = mistakes[len(rows) % len(mistakes)]
        story = draw_story(rng)
        prompt, chosen = tell(story), summarise(story)
        rejected = summarise(_MISTAKES[wrong](rng, story))
        # A summary need not name what was changed.
        if rejected == chosen or prompt in seen or chosen in seen:
            continue
        seen.update((prompt, chosen))
        rows.append(Preference(f"{split}_{len(rows)}", prompt, chosen, rejected, wrong))
    return rows


def _other_person(rng: random.Random, story: Story) -> Story:
    """The one who asks and the one who is asked change their places."""
    return replace(story, layout=replace(story.layout, asker_first=not story.layout.asker_first))


def _other_thing(rng: random.Random, story: Story) -> Story:
    """One thing, place or time is another one of its kind, in order where these have one."""
    names, pool = rng.choice(list(story.scenario.slots.items()))
    wanted = names.replace("<", " ").split()
    places = [pool.index(Noun(story.facts[name])) for name in wanted]
    place = rng.randrange(len(wanted))
    free = {*range(len(pool))} - {*places}
    if "<" in names:
        free &= {*range(*[-1, *places, len(pool)][place : place + 3 : 2])}
    if not free:
        return story
    return replace(story, facts=story.facts | {wanted[place]: pool[rng.choice(sorted(free))]})


def _other_outcome(rng: random.Random, story: Story) -> Story:
    """The request ends otherwise."""
    ending = rng.choice([ending for ending in Ending if ending is not story.ending])
    third = may_have_third(story.relation, ending) and rng.random() < 0.5
    return replace(story, ending=ending, third=third)


_MISTAKES: dict[str, Callable[[random.Random, Story], Story]] = {
    "person": _other_person,
    "thing": _other_thing,
    "outcome": _other_outcome,
}
