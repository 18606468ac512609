"""A model, its rows and its trainer, made one by one from Python, in this process and without Ray."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dure.api import choose_profile, output_folder
from dure.config.schema import Experiment, Profile
from dure.events import Notify

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dure.training.trainer import ModelTrainer

logger = logging.getLogger(__name__)


def load_model_and_tokenizer(
    config: Experiment, *, profile: Profile | None = None, notify: Notify = logger.info
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model of an experiment, ready to train, with its tokenizer.

    Args:
        config: The experiment; its training table says what a family must know of the data, such as the
            classes, and a rehearsal trains its tokenizer on it.
        profile: The machine; recognised when not given.
        notify: Gets one-line messages.

    Raises:
        UserError: The checkpoint cannot be loaded, or a setting does not fit it.
    """
    from dure.family import load_family
    from dure.family.corpus import read_split, texts_of

    family = load_family(config, notify)
    train = read_split(family, "train", config.data.train)
    family.survey({"train": train})
    tokenizer = family.load_tokenizer(lambda: texts_of(family, train))
    return family.load_model(tokenizer, profile or choose_profile(None, notify)), tokenizer


def load_datasets(
    config: Experiment, tokenizer: PreTrainedTokenizerBase, *, notify: Notify = logger.info
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Read, check and encode the training and validation rows of an experiment.

    Raises:
        UserError: A table is wrong, or the tokenizer is for it.
    """
    from dure.family import load_family
    from dure.family.corpus import load_corpus

    corpus = load_corpus(load_family(config, notify), tokenizer=tokenizer, notify=notify)
    return corpus.train, corpus.dev


def create_trainer(
    config: Experiment,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: datasets.Dataset,
    eval_dataset: datasets.Dataset | None = None,
    use_wandb: bool = False,
    logger: logging.Logger | None = None,
    *,
    profile: Profile | None = None,
    output: Path | None = None,
) -> ModelTrainer:
    """Make the trainer of a loaded model, in this process and without Ray.

    Args:
        config: The experiment.
        model: From :func:`load_model_and_tokenizer`, or any model of the experiment's family.
        tokenizer: Its tokenizer.
        train_dataset: Encoded rows, from :func:`load_datasets`.
        eval_dataset: Encoded rows that select the best checkpoint.
        use_wandb: Track with W&B, as the experiment's ``wandb`` section says; offline without key or network.
        logger: Gets one-line messages.
        profile: The machine; recognised when not given.
        output: Folder of the run; ``outputs/<name>/<timestamp>`` when not given.

    Returns:
        A trainer with ``train()`` → ``{"final_model_path", "eval_metrics", …}``, ``evaluate()`` and
        ``compute_metrics``.
    """
    from dure.family import load_family
    from dure.reporting.tracking import WandbTracker
    from dure.runs.folder import RunFolder
    from dure.training.trainer import ModelTrainer
    from dure.training.worker import Worker

    notify = (logger or logging.getLogger(__name__)).info
    return ModelTrainer(
        load_family(config, notify),
        model,
        tokenizer,
        train_dataset,
        eval_dataset,
        profile=profile or choose_profile(None, notify),
        folder=RunFolder(output_folder(config.name, output, resume=False)),
        listeners=[WandbTracker(config.wandb)] if use_wandb else [],
        worker=Worker(notify=notify),
    )
