"""Encoders that read a text or a pair of texts and say a class or a number: fully, with LoRA or with QLoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy
from pydantic import model_validator

from dure.config.scalars import Text
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.data.encoding import token_ids
from dure.data.labels import ClassIndex, check_classes, classes_of
from dure.data.tables import Role, Table
from dure.errors import UserError
from dure.family import Family, Features, Rows
from dure.metrics.classification import (
    CLASS_METRICS,
    class_figures,
    classification_report,
    trivial_classification,
)
from dure.metrics.library_metric import LibraryMetrics
from dure.metrics.metric import Metric
from dure.metrics.numbers import NumberReader, are_measures, number_report
from dure.runs.folder import PROBABILITY
from trainables.samples.reviews import review_corpus
from trainables.samples.sentence_pairs import sentence_pair_corpus
from trainables.transfer import numbers
from trainables.transfer.pairs import TYPES, is_parted, pair_ids

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch, PaddedRows
    from dure.modeling.objectives import Objective
    from dure.modeling.task import Task


class ClassOptions(Section):
    """What ``task:`` of any family of classes may say."""

    metrics: tuple[Text, ...] = ()
    """Further metrics of the ``evaluate`` library at validation, by the folder of their script or by name."""


class TransferOptions(ClassOptions):
    """What ``task:`` of a transfer experiment may say."""

    target: Literal["class", "number"] = "class"
    """What the labels are: names of classes, or numbers that are learned by squared error."""

    @model_validator(mode="after")
    def _metrics_are_of_classes(self) -> Self:
        if self.target == "number" and self.metrics:
            raise ValueError("metrics are for classes, and not for target: number")
        return self


class Transfer(Family):
    """Reads a text, or two with ``data.columns.text_pair``, and says its class or number.

    The classes are those of the training table.
    """

    options_section: ClassVar[type[Section]] = TransferOptions
    options: ClassOptions
    converts: ClassVar[tuple[str, ...]] = ()
    takes_pairs: ClassVar[bool] = True
    """Whether ``data.columns.text_pair`` may name the column of a second text."""

    roles: tuple[Role, ...] = (
        Role("id", "id", required=False, is_id=True),
        Role("text", "text", is_input=True),
        Role("label", "label", is_class=True),
    )
    takes_class_weights = True
    exports = ("transformers", "adapter", "onnx")
    metrics: tuple[Metric, ...] = (
        *(Metric(f"eval_{name}", "max", "share") for name in ("accuracy", "macro_f1", "weighted_f1")),
        *CLASS_METRICS,
    )

    classes: tuple[str, ...] = ()
    """Names of the classes in the order of their ids; known from :meth:`survey` or :meth:`load_exported` on."""

    separator: str | None = None
    """What stands between the classes of one text, where it may have several."""

    class_weights: Mapping[str, float] = MappingProxyType({})
    """Weight of every class, such as ``class_weight[joy]``; known from :meth:`objective` on."""

    def __init__(self, experiment: Experiment, *args: Any) -> None:
        super().__init__(experiment, *args)
        self.is_number = isinstance(self.options, TransferOptions) and self.options.target == "number"
        self.is_pair = self.takes_pairs and "text_pair" in experiment.data.columns
        if self.is_pair:
            # Only where it is named, and then of every table: a pair of which one text is lacking is another task.
            self.roles = (*self.roles, Role("text_pair", "text_pair", is_input=True))
        if self.is_number:
            numbers.refuse_of_classes(experiment)
            self.metrics = numbers.METRICS
            self.roles = tuple(
                replace(role, is_class=False, reader=NumberReader()) if role.name == "label" else role
                for role in self.roles
            )
        self.library = LibraryMetrics(self.options.metrics, "task.metrics")
        if self.library:
            self.metrics = self.library.beside(self.metrics)

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return embedded Korean reviews with their kinds, or pairs of sentences with what one says of the other."""
        if self.is_pair:
            label = "similarity" if self.is_number else "relation"
            return [pair.cells(label) for pair in sentence_pair_corpus()[split]]
        if self.is_number:
            raise UserError(
                "the embedded reviews have classes, and no numbers",
                where="data.train=sample",
                expected="a table with a column of numbers",
                hint="data.columns.text_pair=text_pair rehearses on embedded pairs, whose similarity is a number",
            )
        return [asdict(review) for review in review_corpus()[split]]

    def load_tokenizer(self, texts: Callable[[], Iterator[str]]) -> PreTrainedTokenizerBase:
        """Load the checkpoint's tokenizer, or train the rehearsal's; tell where it would run two texts together."""
        tokenizer = super().load_tokenizer(texts)
        if self.is_pair and not is_parted(tokenizer):
            self.notify(
                f"the tokenizer of {self.experiment.model.checkpoint} puts nothing between the two texts of a pair, so "
                "the model cannot tell where one ends; an encoder such as BERT or RoBERTa has a token for that"
            )
        return tokenizer

    def survey(self, tables: Mapping[str, Table]) -> None:
        """Take the classes from the training table, or tell its numbers; other tables may have none beside them."""
        if self.is_number:
            self._survey_numbers(tables["train"])
            return
        self.classes = classes_of(tables["train"], "label", self.separator)
        if isinstance(self.options, TransferOptions) and are_measures(self.classes):
            self.notify(
                f"{tables['train'].source}: the labels are numbers with fractions, and each is a class of its own; "
                "task.target=number learns them as numbers"
            )
        for split, table in tables.items():
            if split != "train":
                self.check_targets(table)

    def check_targets(self, table: Table) -> None:
        """Refuse a table with a class that the model does not know."""
        if not self.is_number:
            check_classes(table, "label", self.classes, self.separator)

    def _survey_numbers(self, table: Table) -> None:
        """Tell the range of the training numbers, and that nothing is drawn by them."""
        self.notify(f"{table.source}: {numbers.told_of(table.dataset['label'][:])}")
        data = self.experiment.data
        if data.fold is not None or data.train_ratio < 1:
            drawn = "folds are cut" if data.fold is not None else "the part that trains is drawn"
            self.notify(f"{drawn} at random: numbers have no classes of which each could have its share")

    def task(self) -> Task:
        """Return the classification of texts, or their rating by one number."""
        from dure.modeling.task import classification

        if not self.is_number:
            return classification(self.classes, multi_label=self.separator is not None)
        task = classification(["number"])
        return replace(task, config_changes={**task.config_changes, "problem_type": "regression"})

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode texts or pairs and, when the rows have them, the ids of their classes or their numbers."""
        settings = self.experiment.tokenizer
        texts = [settings.input_prefix + text for text in rows["text"]]
        if self.is_pair:
            inputs, types, cut = pair_ids(tokenizer, settings.encoder_max_len, texts, rows["text_pair"])
            features: Features = {"input_ids": inputs, TYPES: types}
        else:
            inputs, cut = token_ids(tokenizer, settings.encoder_max_len, text=texts)
            features = {"input_ids": inputs}
        features |= {"length": [len(row) for row in inputs], "truncated": cut}
        if "label" in rows and self.is_number:
            features["labels"] = [float(label) for label in rows["label"]]
        elif "label" in rows:
            index = ClassIndex(self.classes)
            features["labels"] = [index[label] for label in rows["label"]]
        if "id" in rows:
            features["id"] = list(rows["id"])
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return length, prefix, classes, and whether texts are pairs and labels are numbers."""
        settings = self.experiment.tokenizer
        return {
            "family": "transfer-2",
            "is_pair": self.is_pair,
            "is_number": self.is_number,
            "encoder_max_len": settings.encoder_max_len,
            "input_prefix": settings.input_prefix,
            "classes": list(self.classes),
        }

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PaddedRows:
        """Pad to the longest row of the batch."""
        from trainables.transfer.rows import TypedRows, has_types

        return TypedRows(int(tokenizer.pad_token_id or 0), typed=has_types(model))

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> Objective:
        """Cross entropy over the classes of the rows, balanced when the experiment says so; or squared error."""
        if self.is_number:
            from dure.modeling.objectives import SquaredError

            return SquaredError()
        from dure.modeling.objectives import ClassCrossEntropy, balanced_weights

        settings = self.experiment.objective
        weights = None
        if settings.class_weights == "balanced":
            labels = numpy.asarray(train["labels"][:], dtype="int64")
            weights = balanced_weights(numpy.bincount(labels, minlength=model.config.num_labels))
            self.weigh(classes_of_model(model), {"class_weight": weights})
        return ClassCrossEntropy(settings.label_smoothing, weights)

    def weigh(self, classes: Sequence[str], weights: Mapping[str, Sequence[float]]) -> None:
        """Tell the weights of the classes, of one or two kinds, and keep them for the record."""
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
        """Score the likeliest classes, over all and the figures of every one; or how numbers go with the true ones."""
        if self.is_number:
            return lambda answers: number_report(answers.label_ids, answers.predictions.squeeze(-1))
        classes = classes_of_model(model)

        def score(prediction: EvalPrediction) -> dict[str, float]:
            chosen = numpy.asarray(prediction.predictions).argmax(axis=-1)
            true = [classes[label] for label in numpy.asarray(prediction.label_ids)]
            said = [classes[label] for label in chosen]
            report = classification_report(true, said)
            return {
                **{name: report[name] for name in ("accuracy", "macro_f1", "weighted_f1")},
                **self.library.scores(said, [[label] for label in true], classes),
                **class_figures(report, classes),
            }

        return score

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score the most frequent class, and as probabilities the shares of the classes; or the mean number."""
        if self.is_number:
            given, expected = (numpy.asarray(rows["labels"][:], dtype="float64") for rows in (train, dev))
            return numbers.trivial_numbers(given, expected)
        train_labels, dev_labels = (numpy.asarray(rows["labels"][:], dtype="int64") for rows in (train, dev))
        return trivial_classification(train_labels, dev_labels, len(self.classes))

    def predictions(
        self, answers: torch.Tensor, batch: Batch, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Return the label of every row and the probability of each class; or its number."""
        if self.is_number:
            return [{"label": round(number, 6)} for number in answers.squeeze(-1).tolist()]
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
        """Return whether the class of every row is right, or the squared error of its number."""
        pairs = zip(predictions, rows["label"], strict=True)
        if self.is_number:
            return {"mse": [(row["label"] - float(label)) ** 2 for row, label in pairs]}
        index = ClassIndex(self.classes)
        return {"accuracy": [float(index[row["label"]] == index[label]) for row, label in pairs]}

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probability of every class, in the shape of ``logits``: (rows, classes)."""
        return logits.softmax(dim=-1)

    def label_of(self, probabilities: Sequence[float], classes: Sequence[str]) -> str:
        """Return the likeliest class as the prediction of one row."""
        return classes[max(range(len(classes)), key=probabilities.__getitem__)]

    def combine(self, predictions: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Take the mean of the models' probabilities, and predict by it; or that of their numbers."""
        if self.is_number:
            each = zip(*predictions, strict=True)
            return [{"label": round(sum(row["label"] for row in rows) / len(rows), 6)} for rows in each]
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

    def export(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Save the model, with a tokenizer that gives pairs the token types that it reads, and no others."""
        if self.is_pair:
            from trainables.transfer.rows import has_types

            others = [name for name in tokenizer.model_input_names if name != TYPES]
            tokenizer.model_input_names = [*others, TYPES] if has_types(model) else others
            # What is saved are the attributes that it was made with.
            tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
        super().export(model, tokenizer, folder)

    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the model in fp32, its tokenizer and the names of its classes, if it has some."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.know(model)
        return model.eval(), AutoTokenizer.from_pretrained(folder)

    def know(self, model: PreTrainedModel) -> None:
        """Take the names of the classes."""
        self.classes = tuple(classes_of_model(model))

    def modules(self, model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
        """Return encoder and head with the prefixes of their parameters."""
        from dure.modeling.task import classifier_modules

        return classifier_modules(model)


def classes_of_model(model: PreTrainedModel) -> Sequence[str]:
    """Return the names of a model's classes in the order of their ids."""
    names: Mapping[int, str] = model.config.id2label
    return [names[place] for place in range(len(names))]
