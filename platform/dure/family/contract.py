"""The contract of a model family: the few things that differ from one kind of model to another.

A family is one module with one subclass of :class:`Family`. The engine reaches it by dotted name
(``family: my_package.my_family``) and never imports one itself.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dure.config.loading import checked
from dure.config.schema import Experiment, Profile
from dure.config.section import Section
from dure.data.tables import Role as Role
from dure.data.tables import Table
from dure.errors import UserError, nearest
from dure.events import Notify
from dure.metrics.metric import Metric, choosable, directed, known
from dure.metrics.targets import Target

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch, Batches
    from dure.modeling.objectives import Objective
    from dure.modeling.task import Task

logger = logging.getLogger(__name__)

Rows = Mapping[str, Sequence[str]]
"""A batch of table rows: role → one text per row."""
Features = dict[str, list[Any]]
"""A batch of encoded rows: feature → one value per row."""


ExportFormat = Literal["transformers", "adapter", "onnx", "ctranslate2"]
"""What a trained model can be exported as; see ``dure.exports``."""


class NoOptions(Section):
    """The options of a family that has none."""


class Family(ABC):
    """One kind of model with its data and its metrics; made for one experiment.

    A run calls, in this order: :meth:`survey`, :meth:`load_tokenizer`, :meth:`encode` for every split (in batches; the
    result is cached under :meth:`encoding_key`), :meth:`load_model`, :meth:`batches`, :meth:`compute_metrics`,
    :meth:`objective`, and after training :meth:`export` and :meth:`baseline`. Prediction calls :meth:`load_exported`,
    :meth:`encode`, :meth:`batches` and :meth:`predictions`. ``dure.family.testing`` takes any family through all of it.
    """

    options_section: ClassVar[type[Section]] = NoOptions
    """Typed section that ``task:`` of the experiment must satisfy."""
    roles: tuple[Role, ...]
    """Columns of the tables."""
    predicts: ClassVar[Literal["logits", "text"]] = "logits"
    """What a prediction is made of: the logits of a forward pass, or the ids of generated text."""

    validates: ClassVar[Literal["logits", "text", "loss"]] = "logits"
    """What validation computes for :meth:`compute_metrics` beside the loss; with ``loss`` there is nothing more."""

    converts: ClassVar[tuple[str, ...] | None] = None
    """Words by which a file of an older system says that it is of this family; none where it takes what no other does,
    and None where it takes no such file."""

    takes_class_weights: ClassVar[bool] = False
    """Whether :meth:`objective` honours ``objective.class_weights``; a family that cannot refuses the option."""

    refuses_r_drop: ClassVar[str] = ""
    """Why ``objective.r_drop`` is not for the family; empty where :meth:`batches` can hold every row twice."""

    exports: ClassVar[tuple[ExportFormat, ...]] = ("transformers", "adapter")
    """What ``dure export`` makes of its models.

    ``onnx`` takes the logits of any forward pass, and an encoder–decoder that writes text; ``ctranslate2`` what writes
    text; ``adapter`` models with LoRA.
    """

    metrics: tuple[Metric, ...]
    """What :meth:`compute_metrics` gives, as validation names it (``eval_…``); ``eval_loss`` comes with every family.

    The figures of single classes are declared once, as ``eval_f1[class]``.
    """

    def __init__(self, experiment: Experiment, notify: Notify = logger.info) -> None:
        if experiment.objective.class_weights is not None and not self.takes_class_weights:
            raise UserError(
                f"{experiment.family} has no classes to weigh",
                where="objective.class_weights",
                expected="null",
            )
        if experiment.objective.r_drop > 0 and self.refuses_r_drop:
            raise UserError(
                self.refuses_r_drop, where="objective.r_drop", expected="0", hint="objective.r_drop=0"
            )
        self.experiment = experiment
        self.notify = notify
        self.computes_ahead = True
        """Whether :meth:`encode` may let a model compute what rows need; forecasts and checks want their lengths only."""
        self.profile: Profile | None = None
        """The machine that it does so on, where one was chosen; else whichever is recognised."""
        self.options = checked(self.options_section, dict(experiment.task), {}, "task")

    def recognised(self) -> Mapping[str, str]:
        """Return dotted key to value of what was recognised in the training table, and stays when that is gone."""
        return {}

    def metric(self, name: str) -> Metric | None:
        """Return the metric of a name, one of the family or of every run; None when there is none."""
        return known(name, self.metrics)

    @property
    def best_metric(self) -> Metric:
        """What chooses the best checkpoint: ``training.best_metric``, with its direction.

        Raises:
            UserError: The family has no such metric, it has no direction and ``training.higher_is_better`` gives it
                none, or that contradicts it.
        """
        training = self.experiment.training
        name, names = training.best_metric, choosable(self.metrics)
        metric = self.metric(name) if name in names else None
        if metric is None:
            raise UserError(
                f"'{name}' is no metric of {self.experiment.family}",
                where="training.best_metric",
                expected=f"one of {', '.join(names)}",
                hint=nearest(name, names),
            )
        return directed(metric, training.higher_is_better)

    def measured_by(self, metric: str) -> str:
        """Return what a metric depends on beside model and rows: of different things, the better figure says nothing.

        It is a property of the experiment, such as the tokens of a loss; nothing where the name says it all.
        """
        if not metric.startswith("eval_loss"):
            return ""
        tokens = f" by tokens of {self.experiment.model.checkpoint}" if self.predicts == "text" else ""
        return f"{self.experiment.family}{tokens}"

    @property
    def targets(self) -> Sequence[Target]:
        """What the experiment is to reach, each with the direction of its metric.

        Raises:
            UserError: The family has no such metric, it has no direction, or the value is none that it can have.
        """
        found = []
        for name, value in self.experiment.targets.items():
            metric = self.metric(name) if name.startswith("eval_") else None
            if metric is None or metric.direction is None:
                known = [*map(self.metric, choosable(self.metrics))]
                names = [each.name for each in known if each is not None and each.direction is not None]
                raise UserError(
                    f"'{name}' is no metric of {self.experiment.family} that has a better and a worse",
                    where=f"targets.{name}",
                    expected=f"one of {', '.join(names)}",
                    hint=nearest(name, names),
                )
            if metric.unit == "share" and not 0 <= value <= 1:
                raise UserError(
                    f"{value:g} is no share",
                    where=f"targets.{name}",
                    expected="a number from 0 to 1",
                    hint=f"targets.{name}={value / 100:g}" if 1 < value <= 100 else None,
                )
            found.append(Target(metric, value, is_rehearsal=self.experiment.rehearsal.enabled))
        return found

    @abstractmethod
    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the rows of the embedded corpus by role; ``split`` is train, dev or test."""

    def survey(self, tables: Mapping[str, Table]) -> None:  # noqa: B027  # most families need no such look
        """Look at whole tables before anything is made of them, for what no single row tells, such as the classes.

        Args:
            tables: Split (``train`` always; ``dev`` and ``test`` where they are) to its table as it was read,
                before rows are drawn from it. A test table may lack what is no input.

        Raises:
            UserError: A table is not what the family needs.
        """

    def check_targets(self, table: Table) -> None:  # noqa: B027  # most families have no closed set of targets
        """Look at a table that a model which :meth:`load_exported` gave is to be scored on.

        Raises:
            UserError: It has a target that the model does not know, such as another class.
        """

    def load_tokenizer(self, texts: Callable[[], Iterator[str]]) -> PreTrainedTokenizerBase:
        """Load the checkpoint's tokenizer with the experiment's special tokens, or train the rehearsal's.

        The rehearsal's learns the input prefix too, whose letters the texts may lack.
        """
        from dure.modeling.loading import load_tokenizer

        prefix = self.experiment.tokenizer.input_prefix
        return load_tokenizer(self.experiment, lambda: (prefix + text for text in texts()))

    def register_models(self) -> None:  # noqa: B027  # most families have models of transformers' own
        """Make a model class of the family's own known to transformers (``AutoConfig.register``).

        Called before a checkpoint is looked at without loading it. A family imports such a class, as torch and
        transformers themselves, within its methods: whoever only reads its options and metrics waits for neither.
        """

    def task(self) -> Task | None:
        """Return what the model is loaded for, by which a checkpoint of another kind is refused before rows are read.

        Asked before :meth:`survey`, so that classes may be unknown. None for models of the family's own.
        """
        return None

    def load_model(self, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> PreTrainedModel:
        """Load the model of the :meth:`task` ready to train: special tokens added, adapters in place, on the CPU."""
        from dure.modeling.loading import load_model

        task = self.task()
        if task is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a task() nor a load_model()")
        return load_model(task, self.experiment, profile, tokenizer, self.notify)

    @abstractmethod
    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Turn rows into features.

        Must give ``input_ids`` without padding, ``length`` (what batches are grouped by) and ``truncated``
        (whether the row lost text); every other feature is the family's own. Rows for prediction come
        without the roles that are not inputs.
        """

    def encoding_key(self) -> Mapping[str, Any]:
        """Return the settings that :meth:`encode` depends on, besides the tokenizer: here all that it may know."""
        settings = self.experiment.tokenizer.model_dump(mode="json")
        return {"family": self.experiment.family, **settings, "task": dict(self.experiment.task)}

    @abstractmethod
    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> Batches:
        """Return how encoded rows become batches, and how a batch is halved when memory does not suffice."""

    def training_rows(self, train: datasets.Dataset) -> datasets.Dataset:
        """Return encoded rows as training takes them, such as several in one; here as they are.

        ``training.batch_size`` counts what is returned, which has a ``length`` to be grouped by.
        """
        return train

    def compute_metrics(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return what scores the answers to ``dataset``, whose rows come in the dataset's order.

        Not called when the family :attr:`validates` by ``loss``. Answers are what it says else, logits or generated
        ids, and rows are their first dimension. A figure of one class among others is named ``figure[class]``, such as
        ``f1[positive]``. What these figures are stands in :attr:`metrics`.
        """
        raise NotImplementedError(f"{type(self).__name__} validates by {self.validates} and scores nothing")

    @abstractmethod
    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> Objective:
        """Return the loss that training minimises, as the experiment's ``objective`` section says.

        Args:
            model: The model that is trained; its configuration knows the classes.
            train: The encoded rows that this run trains on, and no others: after overlaps, limits, ratios and
                folds. Class weights are those of these rows.
        """

    @abstractmethod
    def predictions(
        self, answers: torch.Tensor, batch: Batch, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Return what the model's answers to a batch say: for every row, output columns (such as ``summary``) to values.

        Args:
            answers: What the family :attr:`predicts`, on the CPU: logits in fp32, or the ids of what was generated
                after the prompts, shape (rows, length).
            batch: The batch, whose rows may lack targets.
            tokenizer: What the rows were encoded by.
        """

    def row_scores(
        self, predictions: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Sequence[float]]:
        """Return what every row adds to those metrics that are means over rows, for comparisons of models.

        The loss of every row is known without the family; here there is nothing else. Of a score that is 0 or 1 in
        every row, the run's page says which rows are right.

        Args:
            predictions: What :meth:`predictions` gave for the rows.
            rows: Role → one text per row: what is true of them.

        Returns:
            Name of a metric, as :meth:`compute_metrics` gives it → one score per row, whose mean is the metric.
        """
        return {}

    def combine(self, predictions: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Put the predictions of several models on the same rows together, as an ensemble.

        They are by model what :meth:`predictions` gave for all rows.

        Raises:
            UserError: The family has no way to do that.
        """
        raise UserError(
            f"predictions of {self.experiment.family} cannot be put together",
            where="dure predict",
            hint="--fold 1 takes the model of one fold",
        )

    def export(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        """Save the model, adapters merged, so that ``from_pretrained(folder)`` gives it back without dure."""
        from dure.modeling.export import export

        export(model, tokenizer, folder)

    @abstractmethod
    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load what :meth:`export` saved."""

    def know(self, model: Any) -> None:  # noqa: B027  # most families need nothing
        """Take what predictions need, such as the names of the classes, from a model that this family did not load.

        It has a ``config``: an ONNX graph, or a checkpoint with adapters.
        """

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Return what the trivial predictor scores on validation: what a model that learned anything must beat.

        Args:
            tokenizer: What the rows were encoded by.
            train: Encoded training rows, all that the predictor may learn from.
            dev: Encoded validation rows.

        Returns:
            Figures under the names in :attr:`metrics`, and ``eval_loss`` where the predictor has one. A name is
            left out when the figure says nothing about quality; here all are.
        """
        return {}

    def load_scorer(self) -> None:  # noqa: B027  # most families score by what is loaded anyway
        """Load what scoring takes much memory for; called before the memory of a process that will validate is forecast."""

    def metric_notes(self) -> dict[str, str | float]:
        """Return how the metrics were computed, such as the tokeniser of ROUGE or the weights of the classes.

        Stands beside every result; asked for after :meth:`objective`.
        """
        return {}

    def modules(self, model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
        """Return the modules that analysis looks at: name → prefixes of their parameters' names.

        Every parameter is in one of them; here all are in one.
        """
        return {"model": ("",)}

    def module_losses(self) -> dict[str, str]:
        """Return by which validation loss a module is judged, such as ``eval_loss_emotion``.

        Modules that are not named are judged by ``eval_loss``. What is named is one of :attr:`metrics`, of which the
        lowest is best.
        """
        return {}
