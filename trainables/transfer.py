"""Text classification with encoders: BERT, DistilBERT and their like, fully, with LoRA or with QLoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy

from dure.config.scalars import Text
from dure.config.schema import Experiment, Profile
from dure.config.section import Section
from dure.data.encoding import token_ids
from dure.data.labels import ClassIndex, check_classes, classes_of
from dure.data.tables import Role, Table
from dure.family import Family, Features, Rows
from dure.metrics.classification import classification_report, trivial_classification
from dure.metrics.library_metric import LibraryMetrics
from dure.metrics.metric import Metric
from dure.runs.folder import PROBABILITY
from trainables.samples.reviews import Review, review_corpus

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch, PaddedRows
    from dure.modeling.objectives import Objective

_FIGURES = ("precision", "recall", "f1", "support")
CLASS_METRICS = (
    *(Metric(f"eval_{name}[class]", "max", "share") for name in ("precision", "recall", "f1")),
    Metric("eval_support[class]", None, "count"),
)
"""Figures of every class of a classifier."""


class TransferOptions(Section):
    """What ``task:`` of a classifier may say."""

    metrics: tuple[Text, ...] = ()
    """Further metrics of the ``evaluate`` library at validation, by the folder of their script or by name."""


class Transfer(Family):
    """Reads a text and says which class it is of; the classes are those of the training table."""

    roles = (
        Role("id", "id", required=False, is_id=True),
        Role("text", "text", is_input=True),
        Role("label", "label", is_class=True),
    )
    options_section: ClassVar[type[Section]] = TransferOptions
    options: TransferOptions
    takes_class_weights = True
    converts: ClassVar[tuple[str, ...]] = ()
    exports = ("transformers", "adapter", "onnx")
    metrics: tuple[Metric, ...] = (
        *(Metric(f"eval_{name}", "max", "share") for name in ("accuracy", "macro_f1", "weighted_f1")),
        *CLASS_METRICS,
    )

    classes: tuple[str, ...] = ()
    """Names of the classes in the order of their ids; known from :meth:`survey` or :meth:`load_exported` on."""

    class_weights: Mapping[str, float] = MappingProxyType({})
    """Weight of every class, such as ``class_weight[joy]``; known from :meth:`objective` on."""

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        self.library = LibraryMetrics(self.options.metrics, "task.metrics")
        self.metrics = (*self.metrics, *self.library.declared())

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean reviews with what they are: praise, complaint, question …."""
        return [dict(asdict(review)) for review in _reviews()[split]]

    def survey(self, tables: Mapping[str, Table]) -> None:
        """Take the classes from the training table; the other tables may have no class beside them."""
        self.classes = classes_of(tables["train"], "label")
        for split, table in tables.items():
            if split != "train":
                self.check_targets(table)

    def check_targets(self, table: Table) -> None:
        """Refuse a table with a class that the model does not know."""
        check_classes(table, "label", self.classes)

    def load_model(self, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> PreTrainedModel:
        """Load the encoder with a head over the classes."""
        from dure.modeling.loading import load_model
        from dure.modeling.task import classification

        return load_model(classification(self.classes), self.experiment, profile, tokenizer, self.notify)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode texts and, when the rows have them, the ids of their classes."""
        settings = self.experiment.tokenizer
        texts = [settings.input_prefix + text for text in rows["text"]]
        inputs, cut = token_ids(tokenizer, settings.encoder_max_len, text=texts)
        features: Features = {"input_ids": inputs, "length": [len(row) for row in inputs], "truncated": cut}
        if "label" in rows:
            index = ClassIndex(self.classes)
            features["labels"] = [index[label] for label in rows["label"]]
        if "id" in rows:
            features["id"] = list(rows["id"])
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return length, prefix and classes."""
        settings = self.experiment.tokenizer
        return {
            "family": "transfer-1",
            "encoder_max_len": settings.encoder_max_len,
            "input_prefix": settings.input_prefix,
            "classes": list(self.classes),
        }

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PaddedRows:
        """Pad to the longest row of the batch."""
        import torch

        from dure.data.collating import ClassRows

        multiple = 8 if torch.cuda.is_available() else 1
        return ClassRows(int(tokenizer.pad_token_id or 0), multiple_of=multiple)

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> Objective:
        """Cross entropy over the classes of the rows, balanced when the experiment says so."""
        from dure.modeling.objectives import ClassCrossEntropy, balanced_weights

        settings = self.experiment.objective
        weights = None
        if settings.class_weights == "balanced":
            labels = numpy.asarray(train["labels"][:], dtype="int64")
            weights = balanced_weights(numpy.bincount(labels, minlength=model.config.num_labels))
            self.weigh(classes_of_model(model), {"class_weight": weights})
        return ClassCrossEntropy(settings.label_smoothing, weights)

    def weigh(self, classes: Sequence[str], weights: Mapping[str, Sequence[float]]) -> None:
        """Tell the weights of the classes, and keep them for the record.

        Args:
            classes: Names in the order of their ids.
            weights: Name of a kind of weight to one for every class, in their order.
        """
        self.class_weights = {
            f"{kind}[{name}]": float(weight)
            for kind, each in weights.items()
            for name, weight in zip(classes, each, strict=True)
        }
        shown = ", ".join(
            f"{name} {' / '.join(f'{float(each[place]):.3g}' for each in weights.values())}"
            for place, name in enumerate(classes)
        )
        kinds = " (yes / no)" if len(weights) > 1 else ""
        self.notify(f"class weights{kinds}: {shown}")

    def metric_notes(self) -> dict[str, str | float]:
        """Return the weights of the classes, when they are weighed."""
        return {**self.class_weights}

    def compute_metrics(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Score the likeliest classes: accuracy and F1 over all, and the figures of every class."""
        classes = classes_of_model(model)

        def score(prediction: EvalPrediction) -> dict[str, float]:
            chosen = numpy.asarray(prediction.predictions).argmax(axis=-1)
            true = [classes[label] for label in numpy.asarray(prediction.label_ids)]
            said = [classes[label] for label in chosen]
            report = classification_report(true, said)
            absent = dict.fromkeys(_FIGURES, 0)
            return {
                **{name: report[name] for name in ("accuracy", "macro_f1", "weighted_f1")},
                **self.library.scores(said, [[label] for label in true], classes),
                **{
                    f"{figure}[{name}]": float(report["per_class"].get(name, absent)[figure])
                    for name in classes
                    for figure in _FIGURES
                },
            }

        return score

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score the most frequent class, and as probabilities the shares of the classes."""
        train_labels, dev_labels = (numpy.asarray(rows["labels"][:], dtype="int64") for rows in (train, dev))
        return trivial_classification(train_labels, dev_labels, len(self.classes))

    def predictions(
        self, answers: torch.Tensor, batch: Batch, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Return the label of every row and the probability of each class."""
        return [
            {
                "label": self.label_of(shares, self.classes),
                **{f"{PROBABILITY}{name}": round(p, 6) for name, p in zip(self.classes, shares, strict=True)},
            }
            for shares in self.probabilities(answers).tolist()
        ]

    def row_scores(
        self, predictions: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[str]]
    ) -> dict[str, list[float]]:
        """Return whether the class of every row is right."""
        index = ClassIndex(self.classes)
        hits = [
            float(index[row["label"]] == index[label])
            for row, label in zip(predictions, rows["label"], strict=True)
        ]
        return {"accuracy": hits}

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of every class, in the shape of ``logits``: (rows, classes)."""
        return logits.softmax(dim=-1)

    def label_of(self, probabilities: Sequence[float], classes: Sequence[str]) -> str:
        """Return the likeliest class as the prediction of one row."""
        return classes[max(range(len(classes)), key=probabilities.__getitem__)]

    def combine(self, predictions: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Take the mean of the models' probabilities, and predict by it."""
        keys = [key for key in predictions[0][0] if key.startswith(PROBABILITY)]
        classes = [key.removeprefix(PROBABILITY) for key in keys]
        together = []
        for rows in zip(*predictions, strict=True):
            shares = [sum(row[key] for row in rows) / len(rows) for key in keys]
            together.append(
                {
                    "label": self.label_of(shares, classes),
                    **{key: round(share, 6) for key, share in zip(keys, shares, strict=True)},
                }
            )
        return together

    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the model in fp32, its tokenizer and the names of its classes."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.classes = tuple(classes_of_model(model))
        return model.eval(), AutoTokenizer.from_pretrained(folder)

    def modules(self, model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
        """Return encoder and head with the prefixes of their parameters."""
        from dure.modeling.classifier import classifier_modules

        return classifier_modules(model)


@cache
def _reviews() -> dict[str, list[Review]]:
    """Write the embedded corpus once in a process, which may run many experiments on it."""
    return review_corpus()


def classes_of_model(model: PreTrainedModel) -> Sequence[str]:
    """Return the names of a model's classes in the order of their ids."""
    names: Mapping[int, str] = model.config.id2label
    return [names[place] for place in range(len(names))]
