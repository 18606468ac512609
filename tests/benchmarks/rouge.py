"""ROUGE of dure against ``rouge_score``: the same texts, the same tokeniser, all four metrics, one thread.

    python -m tests.benchmarks.rouge [--repeats 5]

Both are run in turn within every repeat; a figure is the median over the repeats. The texts look like
Korean (words of 2-5 syllables, the frequent ones often), about as long as DialogSum's: summaries of 20
words in one line, dialogues of 12 turns. A prediction is its reference with every other word replaced.
The morphemes of ``morpheme`` come from its cache for both sides, so that row measures scoring alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from dure.metrics.rouge import rouge, rouge_pairs
from dure.metrics.tokenizers import TokenizerName, get_tokenizer
from tests.benchmarks.table import Row, Spent, hand_over

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@dataclass(frozen=True)
class Corpus:
    """Predictions and references of one kind of text."""

    name: str
    predictions: list[str]
    references: list[str]


ASKED: Mapping[str, float] = {"character": 20, "whitespace": 3}
"""How many times faster dure is to be, by tokeniser."""


def corpora(num_summaries: int = 200, num_dialogues: int = 20, seed: int = 42) -> list[Corpus]:
    """Generate the texts; the same for the same arguments."""
    source = random.Random(seed)
    syllables = [chr(source.randrange(0xAC00, 0xD7A4)) for _ in range(800)]
    words = ["".join(source.choices(syllables, k=source.choice([2, 3, 3, 4, 4, 5]))) for _ in range(1500)]

    def word() -> str:
        return words[min(int(source.paretovariate(0.7)), len(words)) - 1]

    def phrase(num_words: int) -> str:
        return " ".join(word() for _ in range(num_words))

    def summary() -> str:
        return f"#Person{source.randrange(1, 4)}#은 {phrase(19)}."

    def dialogue() -> str:
        return "\n".join(f"#Person{turn % 2 + 1}#: {phrase(source.randrange(5, 16))}." for turn in range(12))

    def altered(text: str) -> str:
        return "\n".join(
            " ".join(old if source.random() < 0.5 else word() for old in line.split(" "))
            for line in text.split("\n")
        )

    made = []
    for name, make, number in (("summaries", summary, num_summaries), ("dialogues", dialogue, num_dialogues)):
        references = [make() for _ in range(number)]
        made.append(Corpus(name, [altered(text) for text in references], references))
    return made


def measure(corpus: Corpus, tokenizer: TokenizerName, repeats: int) -> Row:
    """Time both implementations in turn, and compare every one of their numbers."""
    cutter = get_tokenizer(tokenizer)
    scorer = RougeScorer(list(METRICS), tokenizer=cutter)

    def theirs() -> object:
        return [
            scorer.score(reference, prediction)
            for prediction, reference in zip(corpus.predictions, corpus.references, strict=True)
        ]

    def ours() -> object:
        return rouge(corpus.predictions, corpus.references, tokenizer=tokenizer)

    difference = _largest_difference(corpus, tokenizer, scorer)  # warms both up
    assert difference < 1e-9, f"{corpus.name}, {tokenizer}: an F1 differs by {difference}"
    per_pair = 1e6 / len(corpus.predictions)
    found: dict[str, list[Spent]] = {"rouge_score": [], "dure": []}
    for _ in range(repeats):
        for way, work in (("rouge_score", theirs), ("dure", ours)):
            spent = Spent.by(work)
            found[way].append(Spent(spent.cpu * per_pair, spent.wall))
    return Row(
        f"ROUGE of {corpus.name}, {tokenizer}",
        found,
        len(corpus.predictions),
        ASKED.get(tokenizer),
        unit="CPU µs a pair",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every corpus with every tokeniser and hand the rows over."""
    parser = argparse.ArgumentParser(description="ROUGE of dure against rouge_score")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    names: tuple[TokenizerName, ...] = ("character", "whitespace", "morpheme")
    hand_over("rouge", [measure(corpus, name, options.repeats) for corpus in corpora() for name in names])


def _largest_difference(corpus: Corpus, tokenizer: TokenizerName, scorer: RougeScorer) -> float:
    """Return the largest difference of any F1 of any pair."""
    ours = rouge_pairs(corpus.predictions, corpus.references, tokenizer=tokenizer)
    theirs = map(scorer.score, corpus.references, corpus.predictions)
    return max(
        abs(getattr(our, metric).f1 - their[metric].fmeasure)
        for our, their in zip(ours, theirs, strict=True)
        for metric in METRICS
    )


if __name__ == "__main__":
    main()
