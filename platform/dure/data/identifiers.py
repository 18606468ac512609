"""Finding ids that stand twice, in 16 bytes a row."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_RECENT = 1 << 16


class IdIndex:
    """The ids seen so far, as 64-bit hashes with their row numbers.

    Two different ids share a hash with a chance of about n² / 2⁶⁵: 3e-8 for a million rows. The newest are in a
    dictionary; older ones in sorted arrays of at least doubling size, so that few of them have to be searched.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._sorted: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []

    def add(self, text: str, row: int) -> int | None:
        """Return the row that has this id already; otherwise remember it and return None."""
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        if number in self._recent:
            return self._recent[number]
        if self._sorted:
            key = np.uint64(number)
            for hashes, rows in self._sorted:
                place = int(np.searchsorted(hashes, key))
                if place < len(hashes) and hashes[place] == key:
                    return int(rows[place])
        self._recent[number] = row
        if len(self._recent) == _RECENT:
            self._settle()
        return None

    def _settle(self) -> None:
        hashes = np.fromiter(self._recent.keys(), dtype=np.uint64, count=len(self._recent))
        rows = np.fromiter(self._recent.values(), dtype=np.int64, count=len(self._recent))
        self._recent.clear()
        while self._sorted and len(self._sorted[-1][0]) <= len(hashes):
            older_hashes, older_rows = self._sorted.pop()
            hashes = np.concatenate([older_hashes, hashes])
            rows = np.concatenate([older_rows, rows])
        order = np.argsort(hashes)
        self._sorted.append((hashes[order], rows[order]))
