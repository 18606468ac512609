"""What all families that write texts have in common: how a text is read off ids, scored, and what a trivial one scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dure.config.schema import TokenizerConfig
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.metrics.rouge import rouge, rouge_pairs
from dure.metrics.tokenizers import TokenizerName, get_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_sum")
METRICS = (
    *(Metric(f"eval_{name}", "max", "percent" if name == "rouge_sum" else "share") for name in ROUGE),
    Metric("eval_num_empty_predictions", "min", "count"),
    Metric("eval_mean_generated_tokens", None),
)
"""Figures of generated texts."""


def check_rouge_tokenizer(name: TokenizerName) -> None:
    """Check that what ROUGE is to cut texts with is installed.

    Raises:
        UserError: It is not.
    """
    try:
        get_tokenizer(name)
    except UserError as error:
        raise error.at("task.rouge_tokenizer") from None


def load_rouge_tokenizer(name: TokenizerName) -> None:
    """Load what ROUGE cuts texts with, which kiwi does with its first one: 0.5 GB for ``morpheme``."""
    get_tokenizer(name).tokenize("가")


def notes_on_rouge(name: TokenizerName) -> dict[str, str | float]:
    """Return the tokeniser of ROUGE and its version."""
    tokenizer = get_tokenizer(name)
    return {"rouge_tokenizer": tokenizer.name, "rouge_tokenizer_version": tokenizer.version}


def scores(
    texts: Sequence[str], references: Sequence[str], name: TokenizerName, markers: Sequence[str]
) -> dict[str, float]:
    """Return ROUGE of texts, and how many are empty.

    Args:
        texts: What was written.
        references: What was to be.
        name: How ROUGE cuts texts.
        markers: Words such as ``#Person1#`` that it takes as one.
    """
    found = rouge(texts, references, tokenizer=name, special_tokens=markers).as_dict()
    return {name: float(found[name]) for name in (*ROUGE, "num_empty_predictions")}


def row_scores(
    texts: Sequence[str], references: Sequence[str], name: TokenizerName, markers: Sequence[str]
) -> dict[str, list[float]]:
    """Return ROUGE of every text; arguments are those of :func:`scores`."""
    found = rouge_pairs(texts, references, tokenizer=name, special_tokens=markers)
    each = {
        name: [float(getattr(score, name).f1) for score in found] for name in ROUGE if name != "rouge_sum"
    }
    return {**each, "rouge_sum": [score.rouge_sum for score in found]}


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Any, settings: TokenizerConfig) -> list[str]:
    """Turn rows of generated ids into texts that keep the experiment's special tokens and drop all others."""
    kept = set(tokenizer.convert_tokens_to_ids(list(settings.all_special_tokens)))
    dropped = set(tokenizer.all_special_ids) - kept
    rows = [[int(token) for token in row if token >= 0 and int(token) not in dropped] for row in ids]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=False)]
