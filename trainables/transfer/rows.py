"""Batches of texts and of pairs, which are told apart where the model has token types for that."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from dure.data.collating import Batch, PaddedRows, Row, padded
from trainables.transfer.pairs import TYPES


class TypedRows(PaddedRows):
    """Padded rows, with the token types of pairs where the model is ``typed``; see :func:`has_types`."""

    def __init__(self, pad_token_id: int, *, typed: bool) -> None:
        super().__init__(pad_token_id)
        self.typed = typed

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return one batch; ``token_type_ids`` of pairs are of shape (rows, longest)."""
        batch = super().collate(rows)
        if self.typed and TYPES in rows[0]:
            batch[TYPES] = padded([row[TYPES] for row in rows], 0, multiple_of=self.multiple_of)
        return batch


def has_types(model: PreTrainedModel) -> bool:
    """Return whether a model tells a second text by its token type.

    RoBERTa has a single type, whatever its tokenizer says (KLUE's is BERT's, which says 1 for the second text);
    DistilBERT and ModernBERT take none, DeBERTa ignores them.
    """
    return (getattr(model.config, "type_vocab_size", None) or 0) > 1
