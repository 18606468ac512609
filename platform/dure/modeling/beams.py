"""Beam search as transformers has it, with rows leaving the batch when nothing can change their result any more.

The steps are those of ``GenerationMixin._beam_search`` and call the same methods of the model, so that ids are the same.
What differs: a row whose beams are settled is put aside with its encoder states and caches, where transformers goes on
with it until the last row is settled; and the keys and values of the encoder's states stay where they are when beams
change places, since they are the same for all beams of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

SelectRows = Callable[[dict[str, Any], torch.Tensor, int], dict[str, Any]]
"""Returns what the next step takes, of some rows among so many."""
_IMPOSSIBLE = -1e9


class BeamSearch:
    """One beam search over a batch.

    Args:
        model: An encoder–decoder.
        input_ids: What the decoder begins with, each row once per beam: shape (rows * beams, length).
        config: How it generates.
        stopping: When a text is over.
    """

    def __init__(
        self, model: Any, input_ids: torch.Tensor, config: Any, stopping: StoppingCriteriaList
    ) -> None:
        self.model, self.config, self.stopping = model, config, stopping
        self.beams: int = config.num_beams
        self.prompt = self.length = input_ids.shape[1]
        eos, pad = config._eos_token_tensor, config._pad_token_tensor
        self.kept = max(2, 1 + (0 if eos is None else len(eos))) * self.beams
        self.is_top = torch.arange(self.kept, device=input_ids.device) < self.beams
        rows, device = len(input_ids) // self.beams, input_ids.device
        shape = (rows, self.beams)
        filled = pad or eos[0] if eos is not None else -1
        running = torch.full((*shape, config.max_length), int(filled), dtype=torch.int64, device=device)
        running[:, :, : self.length] = input_ids.view(*shape, -1)
        scores = torch.zeros(shape, device=device)
        scores[:, 1:] = _IMPOSSIBLE  # At first all beams of a row are alike, and one of them counts.
        came_from = torch.full(
            (*shape, config.max_length - self.length), -1, dtype=torch.int32, device=device
        )
        self.state: dict[str, torch.Tensor] = {
            "place": torch.arange(rows, device=device),
            "running": running,
            "running_scores": scores,
            "running_from": came_from,
            "best": running.clone(),
            "best_scores": torch.full(shape, _IMPOSSIBLE, device=device),
            "best_from": came_from.clone(),
            "is_finished": torch.zeros(shape, dtype=torch.bool, device=device),
            "may_improve": torch.ones((rows, 1), dtype=torch.bool, device=device),
        }
        self.settled: list[dict[str, torch.Tensor]] = []

    def search(
        self,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        kwargs: dict[str, Any],
        select: SelectRows,
    ) -> torch.Tensor:
        """Return the best ids of every row, shape (rows, length).

        Args:
            input_ids: As above.
            processors: What changes scores.
            kwargs: What the model takes at every step.
            select: Takes some rows of ``kwargs``.
        """
        model = self.model
        outputs = model._prefill(input_ids, self.config, kwargs, is_first_iteration=True)
        while True:
            kwargs = model._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=True)
            found = outputs.logits[:, -1].float().log_softmax(dim=-1)
            hits = self._advance(processors(input_ids, found))
            moved = self.state["running_from"][..., self.length - 1 - self.prompt].flatten()
            kwargs["past_key_values"].self_attention_cache.reorder_cache(moved)
            stays = self._unsettled(all_over=bool(hits.all()))
            rows = len(self.state["place"])
            if len(stays) < rows:
                gone = torch.ones(rows, dtype=torch.bool, device=stays.device)
                gone[stays] = False
                self.settled.append({name: value[gone] for name, value in self.state.items()})
                if not len(stays):
                    return self._result()
                self.state = {name: value[stays] for name, value in self.state.items()}
                places = stays[:, None] * self.beams + torch.arange(self.beams, device=stays.device)
                kwargs = select(kwargs, places.flatten(), rows * self.beams)
            input_ids = self.state["running"][:, :, : self.length].flatten(0, 1)
            read = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **kwargs)
            outputs = model(**read, return_dict=True)

    def _advance(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Put one more token to the beams; returns which of the candidates end, shape (rows, candidates)."""
        state, model, config = self.state, self.model, self.config
        rows = len(state["place"])
        totals = (log_probs.view(rows, self.beams, -1) + state["running_scores"][:, :, None]).view(rows, -1)
        top_scores, top, top_from = model._get_top_k_continuations(
            accumulated_log_probs=totals, running_sequences=state["running"], running_beam_indices=state["running_from"],
            cur_len=self.length, decoder_prompt_len=self.prompt, do_sample=False, beams_to_keep=self.kept,
            num_beams=self.beams, batch_size=rows,
        )  # fmt: skip
        hits: torch.Tensor = self.stopping(top[:, :, : self.length + 1].flatten(0, 1), None).view(
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

    def _unsettled(self, *, all_over: bool) -> torch.Tensor:
        """Return the rows whose result may still change, by their places in the batch."""
        if all_over:
            return self.state["place"].new_zeros(0)
        goes_on: torch.Tensor = self.state["may_improve"][:, 0]
        if self.config.early_stopping is True:
            goes_on = goes_on & ~self.state["is_finished"].all(dim=1)
        return goes_on.nonzero().squeeze(1)

    def _result(self) -> torch.Tensor:
        """Return the best ids of every row, as long as the longest of them."""
        together = {name: torch.cat([each[name] for each in self.settled]) for name in self.state}
        order = together["place"].argsort()
        longest = int((together["best_from"][:, 0] >= 0).sum(dim=1).max())
        return together["best"][order, 0, : self.prompt + longest]
