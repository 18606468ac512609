"""Emotions in Korean text with KoBERT or any other encoder: one per text, or any number of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy
from pydantic import Field, model_validator

from dure.config.scalars import Bool, Float, Text
from dure.config.schema import Experiment
from dure.data.cleaning import CleaningConfig, cleaned
from dure.data.fields import CellReader
from dure.data.labels import ClassIndex, labels_in, shown_label
from dure.errors import UserError
from dure.family import Features, Rows
from dure.metrics.classification import (
    CLASS_METRICS,
    class_figures,
    multilabel_report,
    trivial_multilabel,
)
from dure.metrics.metric import Metric
from trainables.samples.emotions import emotion_corpus
from trainables.transfer import ClassOptions, Transfer, classes_of_model

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import PaddedRows
    from dure.modeling.objectives import Objective

_OVERALL = ("subset_accuracy", "micro_f1", "macro_f1")


class EmotionOptions(ClassOptions):
    """What ``task:`` of an emotion experiment may say."""

    multi_label: Bool = False
    """Whether a text may have any number of emotions; exactly one otherwise."""
    label_separator: Text = "|"
    """What stands between the labels of one cell, in tables and in predictions."""
    threshold: Annotated[Float, Field(gt=0.0, lt=1.0)] = 0.5
    """Probability from which on a text is given a label."""
    cleaning: CleaningConfig | None = None
    """How text from the web is cleaned; texts stay as they are when it is not given."""

    @model_validator(mode="after")
    def _several_labels_are_meant(self) -> Self:
        alone = sorted({"label_separator", "threshold"} & self.model_fields_set)
        if alone and not self.multi_label:
            raise ValueError(f"{alone[0]} is for multi_label: true, where a text may have several labels")
        if self.multi_label and self.metrics:
            raise ValueError("metrics are for one label in a text, and not for multi_label: true")
        return self


@dataclass(frozen=True)
class LabelsReader(CellReader):
    """Reads the emotions of a row, which may stand in a list: of JSON or Parquet, or as pandas writes lists to CSV."""

    separator: str
    keeps_spaces: ClassVar[bool] = True

    def read(self, text: str) -> str:
        """Return the emotions with their separator between them."""
        if not text.lstrip().startswith("["):
            return text
        if re.fullmatch(r"\s*\[[0-9\s]+\]\s*", text):  # an array of NumPy
            return self.separator.join(text.strip().strip("[]").split())
        try:
            labels = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        if not labels or any(isinstance(label, list | dict) for label in labels):
            raise UserError(f"holds {shown_label(text)}", expected="a list of at least one emotion")
        return self.separator.join(map(str, labels))


class Emotion(Transfer):
    """Reads a text and says which emotions it shows; the emotions are those of the training table."""

    options_section = EmotionOptions
    options: EmotionOptions
    converts = ("emotion",)
    takes_pairs = False

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        if self.options.multi_label:
            self.separator = self.options.label_separator
            self.metrics = (*(Metric(f"eval_{name}", "max", "share") for name in _OVERALL), *CLASS_METRICS)
            self.roles = tuple(
                replace(role, separator=self.separator, reader=LabelsReader(self.separator))
                if role.is_class
                else role
                for role in self.roles
            )

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean texts; with several labels, every third one is joined with the next."""
        rows = [dict(asdict(feeling)) for feeling in emotion_corpus()[split]]
        if self.separator is not None:
            for one, other in zip(rows[::3], rows[1::3], strict=False):
                one["text"] = f"{one['text']} {other['text']}"
                one["label"] = f"{one['label']}{self.separator}{other['label']}"
        return rows

    def load_tokenizer(self, texts: Callable[[], Iterator[str]]) -> PreTrainedTokenizerBase:
        """Load the checkpoint's tokenizer, or train the rehearsal's on cleaned texts."""
        return super().load_tokenizer(lambda: map(self.clean, texts()))

    def clean(self, text: str) -> str:
        """Return a text as the model reads it, before any prefix."""
        return text if self.options.cleaning is None else cleaned(text, self.options.cleaning)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode cleaned texts and, when the rows have them, the id of their emotion or the ids of all."""
        rows = {**rows, "text": [self.clean(text) for text in rows["text"]]}
        if self.separator is None:
            return super().encode(rows, tokenizer)
        cells = rows.pop("label", None)
        features = super().encode(rows, tokenizer)
        if cells is not None:
            index = ClassIndex(self.classes)
            features["labels"] = [
                list(dict.fromkeys(index[label] for label in labels_in(cell, self.separator)))
                for cell in cells
            ]
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return length, prefix, emotions, their separator and the cleaning."""
        cleaning = self.options.cleaning
        return {
            **super().encoding_key(),
            "family": "emotion-1",
            "separator": self.separator,
            "cleaning": None if cleaning is None else cleaning.model_dump(mode="json"),
        }

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PaddedRows:
        """Pad to the longest row of the batch."""
        if self.separator is None:
            return super().batches(tokenizer, model)
        from dure.data.collating import LabelRows

        return LabelRows(int(tokenizer.pad_token_id or 0), model.config.num_labels)

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> Objective:
        """Cross entropy over emotions, or of yes and no for each; balanced when the experiment says so."""
        if self.separator is None:
            return super().objective(model, train)
        from dure.data.collating import multi_hot
        from dure.modeling.objectives import LabelCrossEntropy, balanced_weights

        settings = self.experiment.objective
        weights = None
        if settings.class_weights == "balanced":
            yes = multi_hot(train["labels"][:], model.config.num_labels).sum(axis=0)
            weights = balanced_weights(numpy.stack([len(train) - yes, yes]))
            self.weigh(
                classes_of_model(model), {"class_weight": weights[1], "class_weight_of_no": weights[0]}
            )
        return LabelCrossEntropy(settings.label_smoothing, weights)

    def compute_metrics(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Score the likeliest emotions, or all from the threshold on, over all and the figures of every one."""
        if self.separator is None:
            return super().compute_metrics(model, tokenizer, dataset)
        import torch

        classes = classes_of_model(model)

        def score(prediction: EvalPrediction) -> dict[str, float]:
            shares = self.probabilities(torch.as_tensor(prediction.predictions)).numpy()
            truth = numpy.asarray(prediction.label_ids) > 0.5
            report = multilabel_report(truth, shares >= self.options.threshold, classes)
            return {name: report[name] for name in _OVERALL} | class_figures(report, classes)

        return score

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score the most frequent emotion, or all as frequent as the threshold; as probabilities their shares."""
        if self.separator is None:
            return super().baseline(tokenizer, train, dev)
        from dure.data.collating import multi_hot

        given, expected = (multi_hot(rows["labels"][:], len(self.classes)) for rows in (train, dev))
        return trivial_multilabel(given, expected, self.options.threshold)

    def row_scores(
        self, predictions: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[str]]
    ) -> dict[str, list[float]]:
        """Return whether the emotion of every row is right, or whether all of them are."""
        if self.separator is None:
            return super().row_scores(predictions, rows)
        index = ClassIndex(self.classes)
        given, true = (
            [{index[label] for label in labels_in(cell, self.separator)} for cell in cells]
            for cells in ([row["label"] for row in predictions], rows["label"])
        )
        return {"subset_accuracy": [float(one == other) for one, other in zip(given, true, strict=True)]}

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of every emotion: of one among all, or of each by itself."""
        return super().probabilities(logits) if self.separator is None else logits.sigmoid()

    def label_of(self, probabilities: Sequence[float], classes: Sequence[str]) -> str:
        """Return the likeliest emotion, or all from the threshold on, joined as in the tables."""
        if self.separator is None:
            return super().label_of(probabilities, classes)
        pairs = zip(classes, probabilities, strict=True)
        return self.separator.join(name for name, share in pairs if share >= self.options.threshold)
