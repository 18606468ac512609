"""The sample corpus: Korean dialogues with summaries, written from dure's own grammar and the same for one seed.

The grammar is laid out in this folder: :mod:`~trainables.samples.korean` inflects,
:mod:`~trainables.samples.scenarios` says what people ask of each other, :mod:`~trainables.samples.relations` and
:mod:`~trainables.samples.phrases` how they speak; :mod:`~trainables.samples.story` draws and summarises what happens,
and :mod:`~trainables.samples.telling` tells it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from trainables.samples.corpus_files import sizes_of
from trainables.samples.story import draw_story, summarise
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
