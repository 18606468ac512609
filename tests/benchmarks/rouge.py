"""ROUGE of dure against ``rouge_score``: the same texts, the same tokeniser, all four metrics, one thread.

    python -m tests.benchmarks.rouge [--repeats 5]

The table goes to stderr and the JSON to stdout.

Both are run in turn within every repeat; a figure is the median over the repeats. The texts look like
Korean (words of 2-5 syllables, the frequent ones often), about as long as DialogSum's: summaries of 20
words in one line, dialogues of 12 turns. A prediction is its reference with every other word replaced.
The morphemes of ``morpheme`` come from its cache for both sides, so that row measures scoring alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

from rich.console import Console
from rich.table import Table
from rouge_score.rouge_scorer import RougeScorer

from dure.metrics.rouge import rouge, rouge_pairs
from dure.metrics.tokenizers import TokenizerName, get_tokenizer

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@dataclass(frozen=True)
class Corpus:
    """Predictions and references of one kind of text."""

    name: str
    predictions: list[str]
    references: list[str]


@dataclass(frozen=True)
class Row:
    """One line of the table; times are microseconds per pair."""

    corpus: str
    tokenizer: TokenizerName
    num_pairs: int
    tokens_per_text: float
    rouge_score_us: float
    dure_us: float
    ratio: float
    largest_difference: float


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
    times = [(_seconds(theirs), _seconds(ours)) for _ in range(repeats)]
    per_pair = 1e6 / len(corpus.predictions)
    return Row(
        corpus=corpus.name,
        tokenizer=tokenizer,
        num_pairs=len(corpus.predictions),
        tokens_per_text=mean(len(tokens) for tokens in cutter.tokenize_all(corpus.references)),
        rouge_score_us=median(slow for slow, _ in times) * per_pair,
        dure_us=median(fast for _, fast in times) * per_pair,
        ratio=median(slow / fast for slow, fast in times),
        largest_difference=difference,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every corpus with every tokeniser and print table and JSON."""
    parser = argparse.ArgumentParser(description="ROUGE of dure against rouge_score")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)

    names: tuple[TokenizerName, ...] = ("character", "whitespace", "morpheme")
    rows = [measure(corpus, name, options.repeats) for corpus in corpora() for name in names]
    table = Table(title="ROUGE-1, 2, L and Lsum, µs per pair")
    for heading in ("texts", "tokenizer", "tokens", "rouge_score", "dure", "faster", "difference"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(
            row.corpus,
            row.tokenizer,
            f"{row.tokens_per_text:.0f}",
            f"{row.rouge_score_us:,.0f}",
            f"{row.dure_us:,.0f}",
            f"{row.ratio:.1f}×",
            f"{row.largest_difference:.0e}",
        )
    Console(stderr=True).print(table)
    print(json.dumps({"benchmark": "rouge", "rows": [asdict(row) for row in rows]}, indent=2))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


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
