"""Red Heart: one text encoder that learns emotion, Bentham values, regret and SURD parts together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from dure.config.scalars import Float, Text
from dure.config.schema import Experiment, Profile
from dure.config.section import Section
from dure.data.encoding import token_ids
from dure.data.tables import Table
from dure.errors import UserError
from dure.family import Family, Features, Rows
from dure.metrics.metric import Metric
from trainables.red_heart.data import TARGET_ROLES, WHOLE, roles_of, targets_of, uneven_sums
from trainables.red_heart.scores import FIGURES, METRICS, scores_of, trivial_logits
from trainables.red_heart.tasks import BENTHAM, EMOTIONS, SURD, TASKS
from trainables.samples.dilemmas import dilemma_corpus

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import Batch, PaddedRows
    from dure.modeling.objectives import Objective
    from trainables.red_heart.losses import RedHeartObjective

SCRATCH = "scratch"
"""What ``model.checkpoint`` says for a model from random weights."""
_TEXT_ROLES = ("title", "action", "text")
_PREFIXES = {"emotion": "probability_", "bentham": "bentham_", "regret": "", "surd": "surd_"}
"""What the columns of predictions have before the name of a value."""


class RedHeartOptions(Section):
    """The options of Red Heart."""

    preset: Literal["730m", "800m", "320m", "tiny"] = "730m"
    """Sizes of the model; a rehearsal is always the tiny one."""
    emotions: tuple[Text, ...] = Field(default=EMOTIONS, min_length=2)
    """Names of the emotion classes, in the order in which the table's lists give them."""
    bentham: tuple[Text, ...] = Field(default=BENTHAM, min_length=1)
    """Names of the Bentham values, in the order in which the table's lists give them."""
    weights: dict[Literal["emotion", "bentham", "regret", "surd"], Float] = Field(default_factory=dict)
    """Weight of a task's loss; 1 for those not named."""
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    """Whether the weights stay, or are multiplied by ones that the model learns (Kendall et al. 2018)."""
    embedding_from: Text | None = None
    """Folder of an encoder whose tokenizer and token embedding the model begins with."""
    sample_label_noise: Float = Field(default=0.0, ge=0.0, le=1.0)
    """Part of the training targets of the embedded corpus that are swapped, so that overfitting happens."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> RedHeartOptions:
        for names in (self.emotions, self.bentham):
            if len({name.casefold() for name in names}) < len(names):
                raise ValueError("two names are the same")
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("a weight is below 0")
        return self


class RedHeart(Family):
    """Reads what someone did and says what was felt, what it is worth, what is regretted and what caused it."""

    options_section = RedHeartOptions
    options: RedHeartOptions
    exports = ("transformers", "onnx")
    metrics = (*METRICS, *(Metric(f"eval_loss_{task}", "min") for task in TASKS))

    def __init__(self, experiment: Experiment, *notify: Callable[[str], None]) -> None:
        super().__init__(experiment, *notify)
        if experiment.lora is not None:
            raise UserError("Red Heart trains all its weights", where="lora", expected="null")
        self.roles = roles_of(self.options.emotions, self.options.bentham)

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean dilemmas, with ``task.sample_label_noise`` in the training rows."""
        corpus = dilemma_corpus(label_noise=self.options.sample_label_noise)
        return [row.cells() for row in corpus[split]]

    def survey(self, tables: Mapping[str, Table]) -> None:
        """Tell which targets a table lacks, and which parts are no parts of one whole."""
        for split, table in tables.items():
            held = {
                task: sum(map(bool, table.dataset[role][:])) if role in table.dataset.column_names else 0
                for task, role in TARGET_ROLES.items()
            }
            if split != "test" and not any(held.values()):
                raise UserError(
                    "no row has a target",
                    where=table.source,
                    expected=f"values in one of the columns {', '.join(TARGET_ROLES.values())}",
                    hint="data.columns.emotions=COLUMN names the column to read, and so on",
                )
            for task, number in held.items():
                if number < table.num_rows:
                    self.notify(
                        f"{table.source}: {table.num_rows - number:,} of {table.num_rows:,} rows have no "
                        f"{TARGET_ROLES[task]}; they teach the {task} head nothing"
                    )
            best = self.experiment.training.best_metric.removeprefix("eval_").removeprefix("loss_")
            judged = best.partition("_")[0]
            if split == "dev" and judged in held and not held[judged]:
                raise UserError(
                    f"no row has a value in {TARGET_ROLES[judged]}, by which the best checkpoint is chosen",
                    where=f"{table.source} (training.best_metric)",
                    expected="eval_loss, or a metric of another task",
                )
            for role in ("emotions", "surd_metrics"):
                if role in table.dataset.column_names and (uneven := uneven_sums(table.dataset[role][:])):
                    self.notify(
                        f"{table.source}: {uneven:,} of {table.num_rows:,} rows have {role} that miss 1 as "
                        f"their sum by more than {WHOLE}; they are taken as shares of their sum"
                    )

    def register_models(self) -> None:
        """Import the model, which registers itself."""
        import trainables.red_heart.model  # noqa: F401  # what is wanted is the import

    def load_tokenizer(self, texts: Callable[[], Iterator[str]]) -> PreTrainedTokenizerBase:
        """Train a tokenizer on the texts, or load that of ``model.checkpoint`` or ``task.embedding_from``."""
        from dure.modeling.tokens import add_special_tokens
        from trainables.red_heart.tokenizer import folder_tokenizer, train_tokenizer

        source = self._source()
        if source is None:
            mini = self.experiment.rehearsal
            vocab_size = mini.vocab_size if mini.enabled else self._config_changes()["vocab_size"]
            prefix = self.experiment.tokenizer.input_prefix
            tokenizer = train_tokenizer((prefix + text for text in texts()), vocab_size)
        else:
            tokenizer = folder_tokenizer(*source)
        add_special_tokens(tokenizer, self.experiment.tokenizer.all_special_tokens)
        return tokenizer

    def load_model(self, tokenizer: PreTrainedTokenizerBase, profile: Profile) -> PreTrainedModel:
        """Build the preset from random weights drawn by the seed, or load ``model.checkpoint``."""
        from transformers import set_seed

        from trainables.red_heart.model import RedHeartConfig, RedHeartModel
        from trainables.red_heart.tokenizer import take_embedding

        set_seed(self.experiment.experiment.seed)
        checkpoint = self.experiment.model.checkpoint
        source = self._source()
        if source is not None and source[1] == "model.checkpoint":
            return self._continued(Path(checkpoint), len(tokenizer))
        changes = self._config_changes() | {
            "weighting": self.options.weighting,
            "emotions": self.options.emotions,
            "bentham": self.options.bentham,
            "pad_token_id": tokenizer.pad_token_id,
        }
        if len(tokenizer) > changes["vocab_size"]:
            self.notify(f"the tokenizer has {len(tokenizer):,} tokens, more than {changes['vocab_size']:,}")
            changes["vocab_size"] = len(tokenizer)
        model = RedHeartModel(RedHeartConfig(**changes))
        model.name_or_path = checkpoint
        if source is not None:
            self.notify(take_embedding(model, *source))
        return model

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode title, action and text as one, and all targets as one row of numbers, NaN for what is missing."""
        settings = self.experiment.tokenizer
        parts = zip(*(rows[role] for role in _TEXT_ROLES if role in rows), strict=True)
        texts = [settings.input_prefix + "\n".join(filter(None, texts)) for texts in parts]
        inputs, cut = token_ids(tokenizer, settings.encoder_max_len, text=texts)
        features: Features = {"input_ids": inputs, "length": [len(row) for row in inputs], "truncated": cut}
        features["labels"] = targets_of(rows, self._sizes(), len(texts)).tolist()
        if "id" in rows:
            features["id"] = list(rows["id"])
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return length, prefix and the names of the values."""
        settings = self.experiment.tokenizer
        return {
            "family": "red_heart-1",
            "encoder_max_len": settings.encoder_max_len,
            "input_prefix": settings.input_prefix,
            "emotions": list(self.options.emotions),
            "bentham": list(self.options.bentham),
        }

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PaddedRows:
        """Pad to the longest row of the batch."""
        from dure.data.collating import PaddedRows

        return PaddedRows(int(tokenizer.pad_token_id or 0))

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> Objective:
        """Weigh the four losses; ``objective.label_smoothing`` is that of the emotions."""
        return self._objective(self.experiment.objective.label_smoothing)

    def compute_metrics(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dataset: datasets.Dataset
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Score emotions by accuracy and F1, and numbers by mean absolute error and correlation."""

        def score(prediction: EvalPrediction) -> dict[str, float]:
            return scores_of(
                np.asarray(prediction.predictions), np.asarray(prediction.label_ids), self._names()
            )

        return score

    def baseline(
        self, tokenizer: PreTrainedTokenizerBase, train: datasets.Dataset, dev: datasets.Dataset
    ) -> dict[str, float]:
        """Score the same answer to every text: shares of the emotions, means, and the median regret."""
        import torch

        targets = np.asarray(dev["labels"][:], dtype="float32")
        constant = trivial_logits(np.asarray(train["labels"][:], dtype="float32"), self._sizes())
        logits = np.tile(constant, (len(targets), 1)).astype("float32")
        sums = self._objective(0.0).row_losses(torch.from_numpy(logits), torch.from_numpy(targets)).sum(dim=0)
        figures = self._objective(0.0).mean_losses(sums) | scores_of(logits, targets, self._names())
        # A constant tells nothing apart: its correlations say nothing.
        return {
            f"eval_{name}": value
            for name, value in figures.items()
            if name.startswith("loss") or (name in FIGURES and not name.endswith(("pearson", "spearman")))
        }

    def predictions(
        self, answers: torch.Tensor, batch: Batch, tokenizer: PreTrainedTokenizerBase
    ) -> list[dict[str, Any]]:
        """Return the likeliest emotion of every row, the probability of each, and every value."""
        import torch

        from trainables.red_heart.model import predicted_values

        emotions, predicted = self.options.emotions, predicted_values(answers, self._sizes())
        columns = [f"{_PREFIXES[task]}{name}" for task, names in self._names().items() for name in names]
        return [
            {
                "emotion": emotions[row.index(max(row[: len(emotions)]))],
                **{column: round(value, 6) for column, value in zip(columns, row, strict=True)},
            }
            for row in torch.cat([predicted[task] for task in TASKS], dim=1).tolist()
        ]

    def combine(self, predictions: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Take the mean of every probability and value over the models."""
        combined = []
        for rows in zip(*predictions, strict=True):
            mean = {
                name: round(sum(row[name] for row in rows) / len(rows), 6)
                for name in rows[0]
                if name != "emotion"
            }
            emotion = max(self.options.emotions, key=lambda name: mean[f"probability_{name}"])
            combined.append({"emotion": emotion, **mean})
        return combined

    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load the model in fp32 and its tokenizer."""
        import torch
        from transformers import PreTrainedTokenizerFast

        from trainables.red_heart.model import RedHeartModel

        model = RedHeartModel.from_pretrained(folder, dtype=torch.float32)
        return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)

    def modules(self, model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
        """Return the backbone, and the analyser and the head of every task."""
        names = ["backbone", *(f"{part}.{task}" for part in ("analyzers", "heads") for task in TASKS)]
        if model.config.weighting == "uncertainty":
            names.append("weighting")
        return {name: (f"{name}.",) for name in names}

    def module_losses(self) -> dict[str, str]:
        """Judge an analyser and a head by the loss of their task."""
        return {f"{part}.{task}": f"eval_loss_{task}" for part in ("analyzers", "heads") for task in TASKS}

    def _names(self) -> dict[str, tuple[str, ...]]:
        """Return the names of each task's values."""
        options = self.options
        return {"emotion": options.emotions, "bentham": options.bentham, "regret": ("regret",), "surd": SURD}

    def _sizes(self) -> dict[str, int]:
        return {task: len(names) for task, names in self._names().items()}

    def _objective(self, label_smoothing: float) -> RedHeartObjective:
        from trainables.red_heart.losses import RedHeartObjective

        weights = dict.fromkeys(TASKS, 1.0)
        weights.update(self.options.weights.items())
        return RedHeartObjective(self._sizes(), weights, label_smoothing)

    def _config_changes(self) -> dict[str, Any]:
        """Return the preset with its vocabulary said."""
        from trainables.red_heart.model import PRESETS, RedHeartConfig

        changes = PRESETS["tiny" if self.experiment.rehearsal.enabled else self.options.preset]
        return {"vocab_size": RedHeartConfig().vocab_size, **changes}

    def _source(self) -> tuple[Path, str] | None:
        """Return the folder that tokenizer and weights come from, and the option that names it; none in a rehearsal."""
        checkpoint, embedding = self.experiment.model.checkpoint, self.options.embedding_from
        if self.experiment.rehearsal.enabled:
            return None
        if checkpoint != SCRATCH:
            if embedding is not None:
                raise UserError(
                    "the checkpoint has an embedding of its own", where="task.embedding_from", expected="null"
                )
            return Path(checkpoint), "model.checkpoint"
        return None if embedding is None else (Path(embedding), "task.embedding_from")

    def _continued(self, folder: Path, num_tokens: int) -> PreTrainedModel:
        """Load a Red Heart model to train it further; its sizes are its own."""
        import torch

        from trainables.red_heart.model import RedHeartConfig, RedHeartModel

        try:
            config = RedHeartConfig.from_pretrained(folder)
            model = RedHeartModel.from_pretrained(folder, config=config, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"no Red Heart model can be loaded from '{folder}': {reason}",
                where="model.checkpoint",
                expected=f"'{SCRATCH}', or a folder of a Red Heart model",
            ) from error
        for name in ("emotions", "bentham"):
            if tuple(getattr(config, name)) != getattr(self.options, name):
                raise UserError(
                    f"the checkpoint has other names: {', '.join(getattr(config, name))}",
                    where=f"task.{name}",
                )
        if num_tokens > config.vocab_size:
            model.resize_token_embeddings(num_tokens)
        return model
