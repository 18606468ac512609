"""Two texts as one input: encoded together, and told apart where the model has token types for that."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dure.data.collating import Batch, ClassRows, PaddedRows, Row, padded

TYPES = "token_type_ids"


class TypedRows(PaddedRows):
    """Padded rows, with the token types of pairs for a model that reads them.

    Args:
        pad_token_id: Fills inputs.
        typed: Whether the model reads token types; see :func:`has_types`.
        multiple_of: Lengths are rounded up to a multiple of it.
    """

    def __init__(self, pad_token_id: int, *, typed: bool, multiple_of: int = 1) -> None:
        super().__init__(pad_token_id, multiple_of=multiple_of)
        self.typed = typed

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return one batch; ``token_type_ids`` of pairs are of shape (rows, longest)."""
        batch = super().collate(rows)
        if self.typed and TYPES in rows[0]:
            batch[TYPES] = padded([row[TYPES] for row in rows], 0, multiple_of=self.multiple_of)
        return batch


class TypedClassRows(TypedRows, ClassRows):
    """Such rows whose label is the id of a class."""


def has_types(model: PreTrainedModel) -> bool:
    """Return whether a model tells a second text by its token type.

    RoBERTa has a single type, whatever its tokenizer says (KLUE's is BERT's, which says 1 for the second text);
    DistilBERT and ModernBERT take none, DeBERTa ignores them.
    """
    return (getattr(model.config, "type_vocab_size", None) or 0) > 1


def pair_ids(
    tokenizer: PreTrainedTokenizerBase, max_length: int, texts: Sequence[str], others: Sequence[str]
) -> tuple[list[list[int]], list[list[int]], list[bool]]:
    """Return the ids of every pair, the type of each id, and whether a text of the pair was cut.

    A pair that is too long loses tokens of its longer text until both are equally long, and of both from then on.

    Args:
        tokenizer: What cuts the texts.
        max_length: Most ids of a pair, control tokens counted.
        texts: The first text of every pair.
        others: The second one.
    """
    found = tokenizer(
        list(texts),
        list(others),
        truncation="longest_first",
        max_length=max_length,
        return_token_type_ids=True,
    )
    ids: list[list[int]] = found["input_ids"]
    cut = [False] * len(ids)
    # Only a pair that fills the length can have been cut; these few are looked at again.
    full = [row for row, each in enumerate(ids) if len(each) >= max_length]
    if full:
        whole = tokenizer([texts[row] for row in full], [others[row] for row in full], verbose=False)
        for row, each in zip(full, whole["input_ids"], strict=True):
            cut[row] = len(each) > max_length
    return ids, found[TYPES], cut


def is_parted(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer puts anything between the two texts of a pair."""
    ids = tokenizer("1", "2")["input_ids"]
    one, other = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in "12")
    begin, end = ids.index(one[-1]), len(ids) - 1 - ids[::-1].index(other[0])
    return end - begin > 1
