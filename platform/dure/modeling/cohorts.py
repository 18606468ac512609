"""Rows that are written together, from their first token on: greedily, or by beam search.

Both search as transformers does, with the methods of the model, so that ids are the same. What differs: a row whose text
is settled leaves the batch, where transformers goes on with it until the last one is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

_IMPOSSIBLE = -1e9

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

    def _staying(self, goes_on: list[bool], device: torch.device) -> torch.Tensor:
        """Let rows go that have ended; returns the places of the others."""
        self.places = [place for place, on in zip(self.places, goes_on, strict=True) if on]
        return torch.tensor([row for row, on in enumerate(goes_on) if on], device=device, dtype=torch.int64)


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
        stays = self._staying([not is_over for is_over in ends], logits.device)
        self._ids = self._ids[stays]
        return stays, stays


class BeamSearch(Cohort):
    """One beam search over rows that began together: the steps of ``GenerationMixin._beam_search``."""

    def __init__(self, asked: Asked, rows: slice) -> None:
        super().__init__(asked, rows)
        self.config, self.prompt = asked.config, self.length
        eos, device = self.config._eos_token_tensor, asked.start.device
        self.kept = max(2, 1 + (0 if eos is None else len(eos))) * self.beams
        self.is_top = torch.arange(self.kept, device=device) < self.beams
        shape, longest = (len(self.places), self.beams), self.config.max_length
        running = asked.start.new_full((*shape, longest), asked.fill)
        running[:, :, : self.length] = asked.start.view(-1, self.beams, self.length)[rows]
        scores = torch.zeros(shape, device=device)
        scores[:, 1:] = _IMPOSSIBLE  # At first all beams of a row are alike, and one of them counts.
        came_from = torch.full((*shape, longest - self.length), -1, dtype=torch.int32, device=device)
        self.state: dict[str, torch.Tensor] = {
            "running": running,
            "running_scores": scores,
            "running_from": came_from,
            "best": running.clone(),
            "best_scores": torch.full(shape, _IMPOSSIBLE, device=device),
            "best_from": came_from.clone(),
            "is_finished": torch.zeros(shape, dtype=torch.bool, device=device),
            "may_improve": torch.ones((shape[0], 1), dtype=torch.bool, device=device),
        }

    def last_tokens(self) -> torch.Tensor:
        """Return the newest token of every running beam, shape (rows * beams, 1)."""
        return self.state["running"][:, :, self.length - 1].reshape(-1, 1)

    def advance(self, logits: torch.Tensor) -> Choice:
        """Choose the best beams one token further; rows leave whose result can no longer change."""
        written = self.state["running"][:, :, : self.length].flatten(0, 1)
        hits = self._choose(self.asked.processors(written, logits.log_softmax(dim=-1)))
        came_from = self.state["running_from"][..., self.length - 1 - self.prompt]
        goes_on = self._goes_on(all_over=bool(hits.all()))
        if all(goes_on):
            return came_from.flatten(), None
        self._put(goes_on)
        stays = self._staying(goes_on, logits.device)
        self.state = {name: value[stays] for name, value in self.state.items()}
        return came_from[stays].flatten(), stays

    def _choose(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Put one more token to the beams; returns which of the candidates end, shape (rows, candidates)."""
        state, model, config = self.state, self.asked.model, self.config
        rows = len(self.places)
        totals = (log_probs.view(rows, self.beams, -1) + state["running_scores"][:, :, None]).view(rows, -1)
        top_scores, top, top_from = model._get_top_k_continuations(
            accumulated_log_probs=totals, running_sequences=state["running"], running_beam_indices=state["running_from"],
            cur_len=self.length, decoder_prompt_len=self.prompt, do_sample=False, beams_to_keep=self.kept,
            num_beams=self.beams, batch_size=rows,
        )  # fmt: skip
        hits: torch.Tensor = self.asked.stopping(top[:, :, : self.length + 1].flatten(0, 1), None).view(
            rows, self.kept
        )
        state["running"], state["running_scores"], state["running_from"] = (
            model._get_running_beams_for_next_iteration(
                topk_log_probs=top_scores, topk_running_sequences=top, topk_running_beam_indices=top_from,
                next_token_hits_stopping_criteria=hits, num_beams=self.beams,
            )
        )  # fmt: skip
        state["best"], state["best_scores"], state["best_from"], state["is_finished"] = (
            model._update_finished_beams(
                sequences=state["best"], topk_running_sequences=top, beam_scores=state["best_scores"],
                topk_log_probs=top_scores, beam_indices=state["best_from"], topk_running_beam_indices=top_from,
                is_early_stop_heuristic_unsatisfied=state["may_improve"], is_sent_finished=state["is_finished"],
                next_token_hits_stopping_criteria=hits, top_num_beam_mask=self.is_top, num_beams=self.beams,
                cur_len=self.length, decoder_prompt_len=self.prompt, length_penalty=config.length_penalty,
                early_stopping=config.early_stopping,
            )
        )  # fmt: skip
        self.length += 1
        state["may_improve"] = model._check_early_stop_heuristic(
            is_early_stop_heuristic_unsatisfied=state["may_improve"], running_beam_scores=state["running_scores"],
            beam_scores=state["best_scores"], is_sent_finished=state["is_finished"], cur_len=self.length,
            max_length=config.max_length, decoder_prompt_len=self.prompt, early_stopping=config.early_stopping,
            length_penalty=config.length_penalty,
        )  # fmt: skip
        return hits

    def _goes_on(self, *, all_over: bool) -> list[bool]:
        """Return of each row whether its result may still change."""
        if all_over:
            return [False] * len(self.places)
        goes_on: torch.Tensor = self.state["may_improve"][:, 0]
        if self.config.early_stopping is True:
            goes_on = goes_on & ~self.state["is_finished"].all(dim=1)
        flags: list[bool] = goes_on.tolist()
        return flags

    def _put(self, goes_on: list[bool]) -> None:
        """Keep the best text of every row that does not go on."""
        lengths = self.prompt + (self.state["best_from"][:, 0] >= 0).sum(dim=1)
        for row, (place, length) in enumerate(zip(self.places, lengths.tolist(), strict=True)):
            if not goes_on[row]:
                self.asked.put(place, self.state["best"][row, 0, :length])
