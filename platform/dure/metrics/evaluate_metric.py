"""Korean-aware ROUGE as an ``evaluate.Metric``, for code that speaks Hugging Face ``evaluate``.

``evaluate.load("rouge")`` downloads a script; this class needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from dure.metrics.rouge import MultiReference, rouge
from dure.metrics.tokenizers import TokenizerName

_DESCRIPTION = (
    "ROUGE-1, 2, L and Lsum (F1, precision, recall) on morphemes, words, characters or rouge_score's own "
    "tokens, with the tokeniser's name and version beside the scores."
)
_INPUTS = """
Args:
    predictions: One text per row.
    references: One text per row, or a list of texts per row.
    tokenizer: morpheme (default), whitespace, whitespace_markers, character or default.
    special_tokens: Texts to keep whole beside #Person1# and its like.
    multi_reference: best (default) or mean.
"""
_CITATION = (
    "Chin-Yew Lin. 2004. ROUGE: A Package for Automatic Evaluation of Summaries. "
    "In Text Summarization Branches Out, pages 74-81."
)


class KoreanRouge(evaluate.Metric):  # type: ignore[misc]
    """ROUGE of ``dure.metrics.rouge`` behind ``compute``, ``add`` and ``add_batch``.

    Example:
        ``KoreanRouge().compute(predictions=[...], references=[...], tokenizer="morpheme")``
    """

    def __init__(self, **settings: Any) -> None:
        # Rows are held in memory unless asked otherwise: evaluation of many trials shares one home folder.
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(
        self,
        *,
        predictions: Sequence[str],
        references: Sequence[str] | Sequence[Sequence[str]],
        tokenizer: TokenizerName = "morpheme",
        special_tokens: Sequence[str] = (),
        multi_reference: MultiReference = "best",
    ) -> dict[str, float | int | str]:
        return rouge(
            predictions,
            references,
            tokenizer=tokenizer,
            special_tokens=special_tokens,
            multi_reference=multi_reference,
        ).as_dict()
