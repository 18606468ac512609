"""ROUGE-1, 2, L and Lsum for Korean and English, equal to ``rouge_score`` and many times faster.

Definitions: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, sections 2 and 3; where
the paper leaves room, ``rouge_score`` 0.1.2 decides (ties between subsequences, counts clipped in Lsum,
sentences of Lsum cut at newlines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain, compress, islice, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq

from dure.errors import UserError
from dure.metrics.lcs import lcs_positions, num_limbs, unpack
from dure.metrics.tokenizers import RougeTokenizer, TokenizerName, get_tokenizer

MultiReference = Literal["best", "mean"]

_PREDICTIONS_PER_CHUNK = 256
"""Tokens and numbers of so many predictions are held at a time, so memory does not grow with the file."""

_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 of one ROUGE metric, each in 0..1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class RougeScores:
    """The four ROUGE metrics of one prediction, or their mean over many."""

    rouge1: Score
    rouge2: Score
    rougeL: Score  # noqa: N815 - the field's name for it
    rougeLsum: Score  # noqa: N815

    @property
    def rouge_sum(self) -> float:
        """F1 of ROUGE-1, 2 and L added up, in 0..3: the figure that picks the best checkpoint."""
        return self.rouge1.f1 + self.rouge2.f1 + self.rougeL.f1


@dataclass(frozen=True, slots=True, kw_only=True)
class RougeResult(RougeScores):
    """Mean ROUGE over a set of predictions, with what is needed to compare it with another."""

    num_pairs: int
    """Predictions scored."""
    num_empty_predictions: int
    """Those in which the tokeniser found no token; they score 0. Beside blank ones these are Hangul texts under
    ``default``.
    """
    tokenizer: str
    """Name of the tokeniser."""
    tokenizer_version: str
    """Library and model behind it."""

    def as_dict(self) -> dict[str, float | int | str]:
        """Return a flat record: ``rouge1`` … are F1, ``rouge1_precision`` and ``rouge1_recall`` beside."""
        record: dict[str, float | int | str] = {}
        for metric in _METRICS:
            score: Score = getattr(self, metric)
            record[metric] = score.f1
            record[f"{metric}_precision"] = score.precision
            record[f"{metric}_recall"] = score.recall
        record["rouge_sum"] = self.rouge_sum
        own = [field.name for field in fields(self) if field.name not in _METRICS]
        return record | {name: getattr(self, name) for name in own}


def rouge(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    *,
    tokenizer: TokenizerName = "morpheme",
    special_tokens: Sequence[str] = (),
    multi_reference: MultiReference = "best",
) -> RougeResult:
    """Score predictions against their references and return the mean over predictions.

    Args:
        predictions: One text per row.
        references: One text per row, or several texts per row.
        tokenizer: How texts become tokens; see ``dure.metrics.tokenizers``.
        special_tokens: Texts to keep whole beside ``#Person1#`` and its like.
        multi_reference: With several references, take for each metric the one with the best F1, as
            ``rouge_score.score_multi`` does, or the mean over them.

    Raises:
        UserError: Nothing to score, rows that do not pair up, a row without reference, or an unknown
            tokeniser or way with several references.
    """
    cutter = get_tokenizer(tokenizer, special_tokens)
    values, num_empty = _values(predictions, references, cutter, multi_reference)
    mean = _scores(values.mean(axis=0))
    return RougeResult(
        *(getattr(mean, metric) for metric in _METRICS),
        num_pairs=len(values),
        num_empty_predictions=num_empty,
        tokenizer=cutter.name,
        tokenizer_version=cutter.version,
    )


def rouge_pairs(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    *,
    tokenizer: TokenizerName = "morpheme",
    special_tokens: Sequence[str] = (),
    multi_reference: MultiReference = "best",
) -> list[RougeScores]:
    """Score every prediction by itself, for paired statistics; arguments and errors as in ``rouge``."""
    cutter = get_tokenizer(tokenizer, special_tokens)
    values, _ = _values(predictions, references, cutter, multi_reference)
    return [_scores(value) for value in values]


class _Numbers(dict[str | tuple[int, int], int]):
    """Numbers tokens and bigrams, in the order in which they are first asked for."""

    def __missing__(self, key: str | tuple[int, int]) -> int:
        number = self[key] = len(self)
        return number


@dataclass(slots=True)
class _Text:
    """A text as numbers: its lines that have tokens, all tokens, and its unigrams and bigrams sorted."""

    lines: list[list[int]]
    tokens: list[int]
    unigrams: list[int]
    bigrams: list[int]


def _values(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    tokenizer: RougeTokenizer,
    multi_reference: MultiReference,
) -> tuple[Array, int]:
    """Return values of shape (predictions, 4 metrics, precision/recall/F1) and how many were empty."""
    grouped = _checked(predictions, references)
    if multi_reference not in ("best", "mean"):
        raise UserError(f"there is no multi_reference {multi_reference!r}", expected="best, mean")
    chunks = []
    num_empty = 0
    for start in range(0, len(predictions), _PREDICTIONS_PER_CHUNK):
        stop = start + _PREDICTIONS_PER_CHUNK
        numbers = _Numbers()
        groups = grouped[start:stop]
        candidates = _encode(predictions[start:stop], tokenizer, numbers)
        targets = _encode(list(chain.from_iterable(groups)), tokenizer, numbers)
        num_empty += sum(not candidate.tokens for candidate in candidates)
        sizes = [len(group) for group in groups]
        paired = [text for text, size in zip(candidates, sizes, strict=True) for _ in range(size)]
        chunks.append(_merged(_pair_values(paired, targets), sizes, multi_reference))
    return np.concatenate(chunks), num_empty


def _checked(
    predictions: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
) -> list[Sequence[str]]:
    """Return the references of every prediction as a group."""
    if isinstance(predictions, str) or isinstance(references, str):
        raise UserError("ROUGE was given one text", expected="a list of texts")
    if len(predictions) != len(references):
        raise UserError(f"{len(predictions)} predictions do not pair up with {len(references)} references")
    if not len(predictions):
        raise UserError("there is no prediction to score")
    grouped = [[group] if isinstance(group, str) else group for group in references]
    for row, group in enumerate(grouped):
        if not len(group):
            raise UserError("the prediction has no reference", where=f"references[{row}]")
    return grouped


def _encode(texts: Sequence[str], tokenizer: RougeTokenizer, numbers: _Numbers) -> list[_Text]:
    """Tokenise ``texts`` line by line and number the tokens; ``numbers`` grows by the new ones."""
    number = numbers.__getitem__
    split = [text.split("\n") for text in texts]
    tokenized = iter(tokenizer.tokenize_all(list(chain.from_iterable(split))))
    encoded = []
    for lines in split:
        numbered = [list(map(number, tokens)) for tokens in islice(tokenized, len(lines)) if tokens]
        tokens = numbered[0] if len(numbered) == 1 else list(chain.from_iterable(numbered))
        encoded.append(_Text(numbered, tokens, sorted(tokens), sorted(map(number, pairwise(tokens)))))
    return encoded


def _pair_values(candidates: list[_Text], references: list[_Text]) -> Array:
    """Return values of shape (pairs, 4 metrics, precision/recall/F1)."""
    hits = np.empty((len(candidates), len(_METRICS)))
    split = []
    for row, (candidate, reference) in enumerate(zip(candidates, references, strict=True)):
        longest = LCSseq.similarity(reference.tokens, candidate.tokens)
        hits[row] = (
            _overlap(candidate.unigrams, reference.unigrams),
            _overlap(candidate.bigrams, reference.bigrams),
            longest,
            longest,  # of Lsum too, where both texts are one line
        )
        if max(len(candidate.lines), len(reference.lines)) > 1 and longest:
            split.append(row)
    if split:
        hits[split, 3] = _summary_hits([candidates[row] for row in split], [references[row] for row in split])

    def totals(texts: list[_Text]) -> Array:
        lengths = np.array([len(text.tokens) for text in texts], dtype=np.float64)
        return np.maximum(np.stack([lengths, lengths - 1, lengths, lengths], axis=1), 1)

    precision = hits / totals(candidates)
    recall = hits / totals(references)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return np.stack([precision, recall, f1], axis=-1)


def _overlap(left: list[int], right: list[int]) -> int:
    """Return the size of the intersection of two multisets, given sorted.

    The longest common subsequence of two sorted sequences is their intersection; measured twice as fast
    as ``collections.Counter`` on 20 tokens and a fifth faster on 80.
    """
    size: int = LCSseq.similarity(left, right)
    return size


def _summary_hits(candidates: list[_Text], references: list[_Text]) -> list[int]:
    """Return the hits of ROUGE-Lsum for texts of several lines.

    A reference line's hits are the tokens at the union of the positions its LCS with each candidate line
    keeps. Over all lines a token counts at most as often as the candidate has it; the reference's own
    count never binds, because no position is taken twice. So the hits are a multiset intersection too.
    """
    lines = list(chain.from_iterable(reference.lines for reference in references))
    pairs = _line_pairs(candidates, references)
    union = np.zeros((len(lines), num_limbs(max(map(len, lines)))), dtype=np.uint64)
    if pairs:
        rows, others = zip(*pairs, strict=True)
        kept = lcs_positions([lines[row] for row in rows], others)
        np.bitwise_or.at(union[:, : kept.shape[1]], np.array(rows), kept)

    taken = (compress(line, flags) for line, flags in zip(lines, unpack(union).tolist(), strict=True))
    hits = []
    for candidate, reference in zip(candidates, references, strict=True):
        tokens = chain.from_iterable(islice(taken, len(reference.lines)))
        hits.append(_overlap(sorted(tokens), candidate.unigrams))
    return hits


def _line_pairs(candidates: list[_Text], references: list[_Text]) -> list[tuple[int, list[int]]]:
    """Return (number of a reference line, candidate line) for all that meet and share a token."""
    pairs = []
    row = 0
    for candidate, reference in zip(candidates, references, strict=True):
        for line in reference.lines:
            known = set(line)
            pairs += [(row, other) for other in candidate.lines if not known.isdisjoint(other)]
            row += 1
    return pairs


def _merged(values: Array, sizes: list[int], multi_reference: MultiReference) -> Array:
    """Reduce values of (prediction, reference) pairs to one per prediction; ``sizes`` are the groups."""
    if max(sizes) == 1:
        return values
    merged = np.empty((len(sizes), *values.shape[1:]))
    stops = np.cumsum(sizes)
    for row, (stop, size) in enumerate(zip(stops, sizes, strict=True)):
        group = values[stop - size : stop]
        if multi_reference == "mean":
            merged[row] = group.mean(axis=0)
        else:
            best = group[..., 2].argmax(axis=0)
            merged[row] = group[best, np.arange(len(_METRICS))]
    return merged


def _scores(values: Array) -> RougeScores:
    """Return values of shape (4 metrics, precision/recall/F1) under their names."""
    return RougeScores(*(Score(*map(float, value)) for value in values))
