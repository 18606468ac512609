"""What all families that write texts have in common: how a text is read off ids, scored, and what a trivial one scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from dure.config.scalars import Text
from dure.config.schema import Experiment, TokenizerConfig
from dure.config.section import Section
from dure.errors import UserError
from dure.family import Family
from dure.metrics.library_metric import LibraryMetrics
from dure.metrics.metric import Metric
from dure.metrics.rouge import rouge, rouge_pairs
from dure.metrics.tokenizers import RougeTokenizer, TokenizerName, get_tokenizer
from trainables.samples.dialogues import dialogue_corpus

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum", "rouge_sum")
METRICS = (
    *(Metric(f"eval_{name}", "max", "percent" if name == "rouge_sum" else "share") for name in ROUGE),
    Metric("eval_num_empty_predictions", "min", "count"),
    Metric("eval_mean_generated_tokens", None),
)
"""Figures of generated texts."""


class TextOptions(Section):
    """What ``task:`` of any family that writes texts may say."""

    rouge_tokenizer: TokenizerName = "morpheme"
    """How ROUGE cuts text: ``morpheme`` for Korean, ``default`` for English, ``whitespace`` as ``str.split``,
    ``whitespace_markers`` with markers cut from the particles behind them, or ``character``."""
    metrics: tuple[Text, ...] = ()
    """Further metrics of the ``evaluate`` library at validation, by the folder of their script or by name."""


class WritesTexts(Family):
    """A family whose models write texts: where it validates by them, ROUGE compares them with the references.

    Rows with a target are encoded with it as ``reference``, and with the ``lead`` of what was read, as texts.
    """

    options_section = TextOptions
    options: TextOptions
    predicts = validates = "text"
    metrics: tuple[Metric, ...] = ()

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        self.library = LibraryMetrics(self.options.metrics, "task.metrics")
        if self.validates == "text":
            self.metrics = self.library.beside(METRICS)
            try:
                self._rouge_tokenizer()
            except UserError as error:  # what it needs is not installed
                raise error.at("task.rouge_tokenizer") from None

    @property
    @abstractmethod
    def answer(self) -> str:
        """Name of the column of predictions."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Words such as ``#Person1#`` that ROUGE takes as one."""
        return self.experiment.tokenizer.all_special_tokens

    def written(self, ids: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], Sequence[int]]:
        """Return the texts of generated ids, and the numbers of their tokens."""
        is_token = (numpy.asarray(ids) != tokenizer.pad_token_id) & (numpy.asarray(ids) >= 0)
        return decoded(tokenizer, ids, self.experiment.tokenizer), is_token.sum(axis=1)

    def compute_metrics(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Score generated texts with ROUGE against the references as they stand in the table."""
        references = dataset["reference"][:]

        def score(prediction: EvalPrediction) -> dict[str, float]:
            texts, lengths = self.written(numpy.asarray(prediction.predictions), tokenizer)
            return {
                **self._scores(texts, references),
                **self.library.scores(texts, [[reference] for reference in references]),
                "mean_generated_tokens": float(numpy.mean(lengths)),
            }

        return score

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score the lead of every text as what is to be written."""
        if self.validates == "loss":
            return {}
        trivial = self._scores(dev["lead"][:], dev["reference"][:])
        return {f"eval_{name}": trivial[name] for name in ROUGE}

    def load_scorer(self) -> None:
        """Load what ROUGE cuts texts with, which kiwi does with its first one: 0.5 GB for ``morpheme``."""
        if self.validates == "text":
            self._rouge_tokenizer().tokenize("가")

    def measured_by(self, metric: str) -> str:
        """Return how ROUGE cuts texts."""
        if metric.startswith("eval_rouge"):
            return f"ROUGE by task.rouge_tokenizer={self.options.rouge_tokenizer}"
        return super().measured_by(metric)

    def metric_notes(self) -> dict[str, str | float]:
        """Return the tokeniser of ROUGE and its version."""
        if self.validates == "loss":
            return {}
        tokenizer = self._rouge_tokenizer()
        return {"rouge_tokenizer": tokenizer.name, "rouge_tokenizer_version": tokenizer.version}

    def predictions(
        self, answers: torch.Tensor, batch: Batch, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Return the text that is written to every row."""
        return [{self.answer: text} for text in self.written(answers.numpy(), tokenizer)[0]]

    def row_scores(
        self, predictions: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[str]]
    ) -> dict[str, list[float]]:
        """Return the ROUGE of every text."""
        if self.validates == "loss":
            return {}
        texts = [row[self.answer] for row in predictions]
        found = rouge_pairs(texts, list(rows["target"]), **self._cutting)
        each = {name: [getattr(score, name).f1 for score in found] for name in ROUGE if name != "rouge_sum"}
        return {**each, "rouge_sum": [score.rouge_sum for score in found]}

    def _rouge_tokenizer(self) -> RougeTokenizer:
        return get_tokenizer(self.options.rouge_tokenizer)

    @property
    def _cutting(self) -> dict[str, Any]:
        """How ROUGE cuts texts."""
        return {"tokenizer": self.options.rouge_tokenizer, "special_tokens": self.markers}

    def _scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Return ROUGE of texts, and how many are empty."""
        found = rouge(texts, references, **self._cutting).as_dict()
        return {name: float(found[name]) for name in (*ROUGE, "num_empty_predictions")}


def dialogue_rows(split: str) -> list[dict[str, str]]:
    """Return the embedded Korean dialogues with their summaries, by role."""
    return [
        {"id": row.fname, "text": row.dialogue, "target": row.summary} for row in dialogue_corpus()[split]
    ]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Any, settings: TokenizerConfig) -> list[str]:
    """Turn rows of generated ids into texts that keep the experiment's special tokens and drop all others."""
    kept = set(tokenizer.convert_tokens_to_ids(list(settings.all_special_tokens)))
    dropped = set(tokenizer.all_special_ids) - kept
    rows = [[int(token) for token in row if token >= 0 and int(token) not in dropped] for row in ids]
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=False)]
