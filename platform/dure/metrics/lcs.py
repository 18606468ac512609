"""Which reference tokens a longest common subsequence keeps, for many pairs of sequences at once.

ROUGE-Lsum needs the positions, not only the length, and where several subsequences are equally long
the choice changes the score. This module makes ``rouge_score``'s choice: walk its table back from the
end, take a match wherever the two tokens agree, else drop the last reference token while that does not
shorten the subsequence, else the last candidate token.

The table is never written out. Columns of vertical differences are kept as bits (Hyyrö, "Bit-Parallel
LCS-length Computation Revisited", AWOCA 2004, section 3), and both the way forward and the way back run
in numpy over all pairs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

LIMB = 63
"""Reference positions in one 64-bit word; the last bit stays free to catch the carry of an addition."""

_FULL = np.uint64(2**LIMB - 1)
_ONE = np.uint64(1)
_CARRY = np.uint64(LIMB)
_LAST = np.uint64(LIMB - 1)
_SMEAR = [np.uint64(2**power) for power in range(6)]

_WORDS_PER_BATCH = 1024
"""Enough to outweigh numpy's cost per call, few enough to stay in the cache; anything from 512 to 8,192
measured alike."""

Bits = npt.NDArray[np.uint64]


def num_limbs(length: int) -> int:
    """Return how many words hold a bit for each of ``length`` positions."""
    return -(-length // LIMB)


def lcs_positions(references: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Bits:
    """Mark in every reference the positions that its LCS with its candidate keeps.

    Tokens are numbers that are not negative; every reference pairs up with a candidate.

    Returns:
        Bits of shape (pairs, words of the longest reference); ``unpack`` makes booleans of them.
    """
    words = np.array([num_limbs(len(reference)) for reference in references], dtype=np.int64)
    steps = np.array([len(candidate) for candidate in candidates], dtype=np.int64)
    kept = np.zeros((len(words), max(words, default=0)), dtype=np.uint64)
    order = np.lexsort((steps, words))  # neighbours are alike, so little is padded
    start = 0
    while start < len(order):
        width = int(words[order[start]])
        stop = start + max(1, _WORDS_PER_BATCH // max(width, 1))
        batch = order[start:stop]
        batch = batch[words[batch] == width]
        kept[batch, :width] = _batch(
            [references[pair] for pair in batch], [candidates[pair] for pair in batch], width
        )
        start += len(batch)
    return kept


def unpack(bits: Bits) -> npt.NDArray[np.bool_]:
    """Return bits of shape (rows, words) as booleans of shape (rows, words × ``LIMB``)."""
    rows, words = bits.shape
    octets = np.ascontiguousarray(bits.astype("<u8", copy=False)).view(np.uint8).reshape(rows, words, 8)
    flags = np.unpackbits(octets, axis=-1, bitorder="little")[..., :LIMB]
    return flags.reshape(rows, words * LIMB).astype(np.bool_)


def _batch(references: list[Sequence[int]], candidates: list[Sequence[int]], width: int) -> Bits:
    """Return the kept positions of pairs whose references all need ``width`` words, shape (pairs, width)."""
    reference, candidate = _padded(references, candidates, width)
    pairs, steps = candidate.shape
    matches = np.empty((steps, pairs, width), dtype=np.uint64)
    stops = np.empty_like(matches)
    level = np.full((pairs, width), _FULL)  # a 0 bit: the table grows by one at this row
    for step in range(steps):
        equal = reference == candidate[:, step, None, None]
        match = np.packbits(equal, axis=-1, bitorder="little").view("<u8").reshape(pairs, width)
        level = _add(level, level & match) | (level & ~match)
        matches[step] = match
        stops[step] = match | (level ^ _FULL)

    kept = np.zeros((pairs, width), dtype=np.uint64)
    below = np.full((pairs, width), _FULL)  # the rows not yet walked past
    for step in reversed(range(steps)):
        # Up this column to the first row that matches or that the subsequence cannot do without.
        reach = _fill_below(stops[step] & below)
        taken = (reach ^ _shift_down(reach)) & matches[step]
        kept |= taken
        below = reach ^ taken
    return kept


def _padded(
    references: list[Sequence[int]], candidates: list[Sequence[int]], width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return references of shape (pairs, width, 64) and candidates of shape (pairs, longest candidate).

    References are padded behind and in each word's free bit, candidates *in front*: a step that matches
    nothing changes no table before the first match, but would move the walk back after the last.
    """
    pairs = len(references)
    reference = np.full((pairs, width * (LIMB + 1)), -1, dtype=np.int64)
    row, position, token = _flat(references)
    reference[row, position + position // LIMB] = token

    lengths = np.array([len(sequence) for sequence in candidates], dtype=np.int64)
    steps = int(lengths.max())
    candidate = np.full((pairs, steps), -2, dtype=np.int64)
    row, position, token = _flat(candidates)
    candidate[row, steps - lengths[row] + position] = token
    return reference.reshape(pairs, width, LIMB + 1), candidate


def _flat(
    sequences: list[Sequence[int]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return row, position and value of every token of ``sequences``."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    token = np.fromiter(chain.from_iterable(sequences), dtype=np.int64, count=int(lengths.sum()))
    row = np.repeat(np.arange(len(sequences)), lengths)
    position = np.arange(len(token)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, position, token


def _add(left: Bits, right: Bits) -> Bits:
    """Add numbers of shape (pairs, words), lowest word first; what overflows the last word is dropped."""
    total = left + right
    for word in range(total.shape[1] - 1):
        total[:, word + 1] += total[:, word] >> _CARRY
    return total & _FULL


def _fill_below(bits: Bits) -> Bits:
    """Set every bit below the highest set one."""
    for distance in _SMEAR:
        bits = bits | (bits >> distance)
    for word in reversed(range(bits.shape[1] - 1)):
        bits[bits[:, word + 1] != 0, word] = _FULL
    return bits


def _shift_down(bits: Bits) -> Bits:
    """Move every bit one place down, across words."""
    moved = bits >> _ONE
    moved[:, :-1] |= (bits[:, 1:] & _ONE) << _LAST
    return moved
