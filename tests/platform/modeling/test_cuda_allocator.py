"""The model of PyTorch's allocator on CUDA takes segments by its rules, and the blocks that a plain search finds."""

from __future__ import annotations

import random

import pytest

from dure.modeling.cuda_allocator import Asked, CachingAllocator, reserved

MIB = 2**20


@pytest.mark.parametrize(
    ("sizes", "segments"),
    [
        ([1], 2),
        ([MIB, MIB], 2),  # two small blocks share a segment
        ([MIB, MIB, 1], 4),
        ([MIB + 1], 20),
        ([9 * MIB, 9 * MIB], 20),  # two of less than 10 MiB share one of 20
        ([9 * MIB, 9 * MIB, 9 * MIB], 40),
        ([9 * MIB, 9 * MIB, 1.5 * MIB], 20),  # what is left of it, and no small block comes from there
        ([9 * MIB, 9 * MIB, 1.5 * MIB, 1], 22),
        ([10 * MIB], 10),
        ([10 * MIB + 1], 12),  # a multiple of 2 MiB
        ([11 * MIB, 1.5 * MIB], 32),  # what is left of 12 is too little to be cut off
    ],
)
def test_segments_are_as_large_as_the_rules_say(sizes, segments):
    allocator = CachingAllocator()
    allocator.do([Asked(number, int(size)) for number, size in enumerate(sizes)])
    assert allocator.reserved == segments * MIB


def test_what_is_given_back_is_whole_again():
    allocator = CachingAllocator()
    allocator.do([Asked(number, 4 * MIB) for number in range(5)])
    assert allocator.reserved == 20 * MIB
    for number in (0, 2, 4, 3, 1):
        allocator.do([Asked(number, 0)])
    allocator.do([Asked(9, 20 * MIB)])
    assert allocator.reserved == 20 * MIB


def test_a_second_step_finds_the_pieces_of_the_first():
    held = [Asked(0, 12 * MIB)]
    # In the first step the tensor that stays ends, and a smaller one takes a part of its place.
    step = [Asked(0, 0), Asked(1, 8 * MIB), Asked(1, 0), Asked(2, 30 * MIB), Asked(2, 0)]
    assert reserved(held, step) == 42 * MIB
    left = [Asked(1, 8 * MIB), Asked(0, 0), Asked(2, 12 * MIB)]  # 1 and 2 are given back after each step
    assert reserved(held, left) == (12 + 20) * MIB


class Plain:
    """The same rules by looking through all gaps of all segments."""

    def __init__(self):
        self.segments = []  # (size, is_small, {start: end})

    def take(self, size):
        size = (size + 511) // 512 * 512
        is_small = size <= MIB
        gaps = [
            (end - start, place, start)
            for place, (_, small, taken) in enumerate(self.segments)
            if small == is_small
            for start, end in self.gaps(place)
            if end - start >= size
        ]
        if not gaps:
            length = 2 * MIB if is_small else 20 * MIB
            if size >= 10 * MIB:
                length = (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)
            self.segments.append((length, is_small, {}))
            gaps = [(length, len(self.segments) - 1, 0)]
        room, place, start = min(gaps)
        left = room - size
        whole = left < 512 if is_small else left <= MIB
        self.segments[place][2][start] = start + (room if whole else size)
        return place, start

    def gaps(self, place):
        size, _, taken = self.segments[place]
        edges = [0, *(edge for start in sorted(taken) for edge in (start, taken[start])), size]
        return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_those_of_a_plain_search(seed):
    draw, allocator, plain, places = random.Random(seed), CachingAllocator(), Plain(), {}
    for number in range(1500):
        size = int(2 ** draw.uniform(6, 25))
        allocator.do([Asked(number, size)])
        places[number] = plain.take(size)
        while places and draw.random() < 0.48:
            ended = draw.choice(list(places))
            allocator.do([Asked(ended, 0)])
            place, start = places.pop(ended)
            del plain.segments[place][2][start]
        assert allocator.reserved == sum(size for size, *_ in plain.segments)
    assert allocator.reserved > 100 * MIB
