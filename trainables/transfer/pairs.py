"""Two texts as one input: encoded together, the longer one cut first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TYPES = "token_type_ids"


def pair_ids(
    tokenizer: PreTrainedTokenizerBase, max_length: int, texts: Sequence[str], others: Sequence[str]
) -> tuple[list[list[int]], list[list[int]], list[bool]]:
    """Return the ids of every pair, the type of each id, and whether a text of the pair was cut.

    A pair that is too long, control tokens counted, loses tokens of its longer text until both are equally long, and of
    both from then on.
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
