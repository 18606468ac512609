"""Rows that are written together, from their first token on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

Choice = tuple[torch.Tensor | None, torch.Tensor | None]
"""Which beam each beam goes on from, and which rows go on; None where nothing changes."""


@dataclass
class Asked:
    """Rows whose texts were asked for together, as transformers prepared them."""

    model: Any
    start: torch.Tensor
    """What the decoder begins with, each row once per beam: shape (rows * beams, 1)."""
    states: torch.Tensor
    """What the encoder made of the rows, shape (rows, positions, width)."""
    mask: torch.Tensor
    """Which positions hold tokens, shape (rows, positions)."""
    processors: LogitsProcessorList
    """What changes scores."""
    stopping: StoppingCriteriaList
    """When a text is over."""
    config: Any
    """How they are written."""
    fill: int
    """The token that stands after a text which has ended."""
    _begun: int = 0
    _texts: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.states)

    @property
    def waiting(self) -> int:
        """How many are not begun."""
        return self.rows - self._begun

    def begin(self, at_most: int) -> slice:
        """Return the next rows, which count as begun."""
        rows = slice(self._begun, min(self._begun + at_most, self.rows))
        self._begun = rows.stop
        return rows

    def put(self, row: int, text: torch.Tensor) -> None:
        """Keep the ids of a row that has ended."""
        self._texts[row] = text

    def ids(self) -> torch.Tensor | None:
        """Return all ids as long as the longest, shape (rows, length); None while some are written."""
        if len(self._texts) < self.rows:
            return None
        longest = max(len(text) for text in self._texts.values())
        whole = self.start.new_full((self.rows, longest), self.fill)
        for row, text in self._texts.items():
            whole[row, : len(text)] = text
        return whole


class Cohort(ABC):
    """Rows that began together, so that all that are still written have equally many tokens."""

    def __init__(self, asked: Asked, rows: slice) -> None:
        self.asked = asked
        self.beams: int = asked.config.num_beams or 1
        """How many texts of each row are written side by side."""
        self.length = asked.start.shape[1]
        """Tokens of each text so far, with those that the decoder began with."""
        self.places = list(range(rows.start, rows.stop))
        """Which rows of what was asked are still written."""

    @abstractmethod
    def last_tokens(self) -> torch.Tensor:
        """Return the newest token of each beam, shape (rows * beams, 1)."""

    @abstractmethod
    def advance(self, logits: torch.Tensor) -> Choice:
        """Put one more token to every beam, and let rows go that have ended.

        Args:
            logits: What the model gives after the newest tokens, shape (rows * beams, vocabulary).
        """


class Greedy(Cohort):
    """The likeliest token each time, as transformers' ``_sample`` has it without sampling."""

    def __init__(self, asked: Asked, rows: slice) -> None:
        super().__init__(asked, rows)
        self._ids = asked.start[rows]

    def last_tokens(self) -> torch.Tensor:
        """Return the newest token of every row, shape (rows, 1)."""
        return self._ids[:, -1:]

    def advance(self, logits: torch.Tensor) -> Choice:
        """Add the likeliest token to every row; rows leave that have ended."""
        scores = self.asked.processors(self._ids, logits)
        self._ids = torch.cat([self._ids, scores.argmax(dim=-1, keepdim=True)], dim=-1)
        self.length += 1
        ends = self.asked.stopping(self._ids, None).tolist()
        if not any(ends):
            return None, None
        for place, text, is_over in zip(self.places, self._ids, ends, strict=True):
            if is_over:
                self.asked.put(place, text)
        stays = torch.tensor(
            [row for row, is_over in enumerate(ends) if not is_over], device=logits.device, dtype=torch.int64
        )
        self.places = [self.places[row] for row in stays.tolist()]
        self._ids = self._ids[stays]
        return stays, stays
