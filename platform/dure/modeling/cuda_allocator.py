"""What PyTorch takes of a CUDA device for the memory that a step asks it for: a model of its caching allocator.

The allocator asks the device for segments, cuts blocks from them and keeps what is given back for what is asked next, so
that it holds more than tensors take. The rules are those of PyTorch 2.13 (``c10/cuda/CUDACachingAllocator.cpp``) with its
default settings: one stream, no expandable segments, no largest size to split.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

_MIB = 2**20
_ROUND = 512
"""All sizes are multiples of it."""
_SMALL, _SMALL_SEGMENT = _MIB, 2 * _MIB
"""What is no larger comes from segments of small blocks."""
_LARGE, _SEGMENT = 10 * _MIB, 20 * _MIB
"""What is smaller, and not small, comes from segments that several share."""
_LARGE_ROUND = 2 * _MIB
"""Segments for one block are multiples of it."""


@dataclass(frozen=True)
class Asked:
    """One request to the allocator: memory for a tensor, or, of size 0, the end of the one of that number."""

    number: int
    size: int
    """Bytes."""


@dataclass(eq=False)
class _Block:
    """A part of a segment, between its neighbours."""

    address: int
    size: int
    is_small: bool
    is_free: bool = True
    before: _Block | None = None
    after: _Block | None = None


class CachingAllocator:
    """Hands out blocks, and never gives a segment back, as long as the device has room."""

    def __init__(self) -> None:
        self.reserved = 0
        """Bytes of all segments."""
        self.living: dict[int, _Block] = {}
        """What was asked for and has not ended, by number."""
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._at: dict[int, _Block] = {}

    def do(self, requests: Sequence[Asked]) -> None:
        """Answer requests in their order; a number that is not known is not given back."""
        for each in requests:
            if each.size:
                self.living[each.number] = self._take(each.size)
            elif each.number in self.living:
                self._give_back(self.living.pop(each.number))

    def _take(self, size: int) -> _Block:
        """Return the smallest free block that is large enough, without what it has too much."""
        size = -(-size // _ROUND) * _ROUND
        is_small = size <= _SMALL
        free = self._free[is_small]
        place = bisect_left(free, (size, 0))
        block = self._at[free.pop(place)[1]] if place < len(free) else self._segment(size, is_small)
        block.is_free = False
        left = block.size - size
        if left >= _ROUND if is_small else left > _SMALL:
            rest = _Block(block.address + size, left, is_small, before=block, after=block.after)
            if rest.after is not None:
                rest.after.before = rest
            block.size, block.after = size, rest
            self._keep(rest)
        return block

    def _segment(self, size: int, is_small: bool) -> _Block:
        """Return a segment of the device, as one block."""
        if is_small:
            size = _SMALL_SEGMENT
        else:
            size = _SEGMENT if size < _LARGE else -(-size // _LARGE_ROUND) * _LARGE_ROUND
        block = _Block(self.reserved, size, is_small)
        self.reserved += size
        return block

    def _give_back(self, block: _Block) -> None:
        """Keep a block for what is asked next, in one with its free neighbours."""
        for other in (block.before, block.after):
            if other is not None and other.is_free:
                free = self._free[other.is_small]
                del free[bisect_left(free, (other.size, other.address))]
                first, second = (other, block) if other is block.before else (block, other)
                first.size += second.size
                first.after = second.after
                if first.after is not None:
                    first.after.before = first
                block = first
        self._keep(block)

    def _keep(self, block: _Block) -> None:
        block.is_free = True
        self._at[block.address] = block
        insort(self._free[block.is_small], (block.size, block.address))


def reserved(held: Sequence[Asked], step: Sequence[Asked]) -> int:
    """Return the bytes that the allocator has of the device once two steps were taken, the second among the first one's pieces.

    ``held`` asks for what lives before a step, also where the step ends it; ``step`` is what a step asks for.
    """
    allocator = CachingAllocator()
    for _ in range(2):
        allocator.do([each for each in held if each.number not in allocator.living])
        allocator.do(step)
        allocator.do([Asked(each.number, 0) for each in step])
    return allocator.reserved
