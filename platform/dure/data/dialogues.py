"""Dialogues and their summaries as a map-style dataset, made of two lists of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dure.data.encoding import token_ids
from dure.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SENTENCE_END = re.compile(r"(?<=[.!?。])\s")


class DialogueSummarizationDataset:
    """Encoded dialogues with their summaries, as :func:`dure.create_trainer` takes them.

    Row ``n`` holds ``input_ids`` (n_tokens,), ``attention_mask``, ``labels`` (n_target_tokens,), ``length`` (tokens of
    the input), ``truncated``, and as texts ``reference`` (the summary) and ``lead`` (the first utterance, which the
    trivial summary is). Nothing is padded: batches are.

    Dialogues of more than ``encoder_max_len`` tokens are cut, and summaries of more than ``decoder_max_len``.

    Raises:
        UserError: There is no dialogue, or the two do not pair up.
    """

    def __init__(
        self,
        dialogues: Sequence[str],
        summaries: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        encoder_max_len: int = 512,
        decoder_max_len: int = 128,
    ) -> None:
        if len(dialogues) != len(summaries) or not len(dialogues):
            raise UserError(
                f"{len(dialogues)} dialogues do not pair up with {len(summaries)} summaries",
                where="DialogueSummarizationDataset",
                expected="a summary for every dialogue, and one dialogue at least",
            )
        self._dialogues, self._summaries = list(dialogues), list(summaries)
        inputs, cut = token_ids(tokenizer, encoder_max_len, text=self._dialogues)
        labels, cut_labels = token_ids(tokenizer, decoder_max_len, text_target=self._summaries)
        self._inputs, self._labels = inputs, labels
        self._truncated = [one or other for one, other in zip(cut, cut_labels, strict=True)]

    def __len__(self) -> int:
        return len(self._dialogues)

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids = self._inputs[row]
        return {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": self._labels[row],
            "length": len(ids),
            "truncated": self._truncated[row],
            "reference": self._summaries[row],
            "lead": lead(self._dialogues[row]),
        }


def lead(text: str) -> str:
    """Return the first line, which is a dialogue's first utterance; of a text in one line the first sentence."""
    lines = [line for line in text.splitlines() if line.strip()]
    first = lines[0] if len(lines) > 1 else _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
    return first.strip()
