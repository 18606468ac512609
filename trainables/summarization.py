"""Summarisation with encoder-decoder models: mT5, T5 and BART, fully, with LoRA or with QLoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from dure.config.scalars import Text
from dure.config.schema import Experiment, Profile
from dure.config.section import Section
from dure.data.dialogues import lead
from dure.data.encoding import token_ids
from dure.data.tables import Role
from dure.family import Family, Features, Rows
from dure.metrics.library_metric import LibraryMetrics
from dure.metrics.metric import Metric
from dure.metrics.tokenizers import TokenizerName
from trainables._summaries import (
    METRICS,
    ROUGE,
    check_rouge_tokenizer,
    decoded,
    load_rouge_tokenizer,
    notes_on_rouge,
    row_scores,
    scores,
)
from trainables.samples.dialogues import Dialogue, dialogue_corpus

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch, TextPairs
    from dure.modeling.objectives import TokenCrossEntropy
    from dure.modeling.task import Task


class SummarizationOptions(Section):
    """What ``task:`` of a summarisation experiment may say."""

    rouge_tokenizer: TokenizerName = "morpheme"
    """How ROUGE cuts text: ``morpheme`` for Korean, ``default`` for English, ``whitespace`` as ``str.split``,
    ``whitespace_markers`` with markers cut from the particles behind them, or ``character``."""
    metrics: tuple[Text, ...] = ()
    """Further metrics of the ``evaluate`` library at validation, by the folder of their script or by name."""


class Summarization(Family):
    """Reads a text (a dialogue, with speakers as special tokens) and writes its summary."""

    options_section = SummarizationOptions
    options: SummarizationOptions
    roles = (
        Role("id", "fname", required=False, is_id=True),
        Role("text", "dialogue", is_input=True),
        Role("target", "summary"),
    )
    predicts = validates = "text"
    converts = ()
    exports = ("transformers", "adapter", "onnx", "ctranslate2")
    metrics: tuple[Metric, ...] = METRICS

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        check_rouge_tokenizer(self.options.rouge_tokenizer)
        self.library = LibraryMetrics(self.options.metrics, "task.metrics")
        if self.library:
            self.metrics = self.library.beside(self.metrics)

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean dialogues with their summaries."""
        rows = (asdict(dialogue) for dialogue in dialogues()[split])
        return [{"id": row["fname"], "text": row["dialogue"], "target": row["summary"]} for row in rows]

    def task(self) -> Task:
        """Return what a summariser does: it reads a text and writes another."""
        from dure.modeling.task import SEQ2SEQ

        return SEQ2SEQ

    def load_model(self, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> PreTrainedModel:
        """Load the model, which generates as the experiment says."""
        from dure.modeling.loading import load_model

        return load_model(self.task(), self.experiment, profile, tokenizer, self.notify)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode inputs with their prefix and, when the rows have them, targets; keep the target's text.

        The lead is kept as well: many tokenizers forget where lines end.
        """
        settings = self.experiment.tokenizer
        texts = [settings.input_prefix + text for text in rows["text"]]
        inputs, cut = token_ids(tokenizer, settings.encoder_max_len, text=texts)
        features: Features = {"input_ids": inputs, "length": [len(row) for row in inputs], "truncated": cut}
        if "target" in rows:
            labels, cut_labels = token_ids(
                tokenizer, settings.decoder_max_len, text_target=list(rows["target"])
            )
            features |= {
                "labels": labels,
                "reference": list(rows["target"]),
                "lead": [lead(text) for text in rows["text"]],
                "truncated": [either or other for either, other in zip(cut, cut_labels, strict=True)],
            }
        if "id" in rows:
            features["id"] = list(rows["id"])
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return lengths and prefix."""
        settings = self.experiment.tokenizer
        return {
            "family": "summarization-1",
            "encoder_max_len": settings.encoder_max_len,
            "decoder_max_len": settings.decoder_max_len,
            "input_prefix": settings.input_prefix,
        }

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> TextPairs:
        """Pad to the longest row of the batch."""
        import torch

        from dure.data.collating import TextPairs
        from dure.modeling.costs import target_cost

        return TextPairs(
            int(tokenizer.pad_token_id or 0),
            lambda labels: model.prepare_decoder_input_ids_from_labels(labels=labels),
            multiple_of=8 if torch.cuda.is_available() else 1,
            target_cost=target_cost(model),
        )

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> TokenCrossEntropy:
        """Cross entropy over the tokens of the summaries."""
        from dure.modeling.objectives import TokenCrossEntropy

        return TokenCrossEntropy(self.experiment.objective.label_smoothing)

    def compute_metrics(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Score generated summaries with ROUGE against the references as they stand in the table."""
        references = dataset["reference"][:]

        def score(prediction: EvalPrediction) -> dict[str, float]:
            ids = prediction.predictions
            texts = decoded(tokenizer, ids, self.experiment.tokenizer)
            generated = (numpy.asarray(ids) != tokenizer.pad_token_id) & (numpy.asarray(ids) >= 0)
            return {
                **self._scores(texts, references),
                **self.library.scores(texts, [[reference] for reference in references]),
                "mean_generated_tokens": float(generated.sum(axis=1).mean()),
            }

        return score

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score the lead of every text as its summary."""
        trivial = self._scores(dev["lead"][:], dev["reference"][:])
        return {f"eval_{name}": trivial[name] for name in ROUGE}

    def load_scorer(self) -> None:
        """Load the tokeniser of ROUGE."""
        load_rouge_tokenizer(self.options.rouge_tokenizer)

    def metric_notes(self) -> dict[str, str | float]:
        """Return the tokeniser of ROUGE and its version."""
        return notes_on_rouge(self.options.rouge_tokenizer)

    def predictions(
        self, answers: torch.Tensor, batch: Batch, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Return the summary of every row."""
        return [{"summary": text} for text in decoded(tokenizer, answers.numpy(), self.experiment.tokenizer)]

    def row_scores(
        self, predictions: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[str]]
    ) -> dict[str, list[float]]:
        """Return the ROUGE of every summary."""
        texts, markers = [row["summary"] for row in predictions], self.experiment.tokenizer.all_special_tokens
        return row_scores(texts, list(rows["target"]), self.options.rouge_tokenizer, markers)

    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load what :meth:`export` saved; it generates as the experiment says, whatever was done to the folder since."""
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

        from dure.modeling.loading import set_generation

        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder, local_files_only=True, generation_config=GenerationConfig()
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        set_generation(model, self.experiment, tokenizer)
        return model, tokenizer

    def modules(self, model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
        """Return encoder and decoder with the prefixes of their parameters.

        What lies beside the two belongs to the one that uses it: embeddings to the encoder, which reads with them,
        the output layer to the decoder, which writes with it.
        """
        names = {id(module): name for name, module in model.named_modules()}
        encoder, decoder = (f"{names[id(part)]}." for part in (model.get_encoder(), model.get_decoder()))
        beside: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for name, _ in model.named_parameters():
            if not name.startswith((encoder, decoder)):
                writes = not {"lm_head", "new_output_rows"}.isdisjoint(name.split("."))
                beside[writes][f"{name.rpartition('.')[0]}."] = None
        return {"encoder": (encoder, *beside[False]), "decoder": (decoder, *beside[True])}

    def _scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        markers = self.experiment.tokenizer.all_special_tokens
        return scores(texts, references, self.options.rouge_tokenizer, markers)


@cache
def dialogues() -> dict[str, list[Dialogue]]:
    """Write the embedded corpus once in a process, which may run many experiments on it."""
    return dialogue_corpus()
