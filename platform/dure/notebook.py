"""A model, its rows and its trainer, made one by one from Python, in this process and without Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

from dure.config.given import path_of
from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.events import Notify
from dure.family import load_family
from dure.family.corpus import Corpus, load_corpus, read_split, texts_of
from dure.family.given_rows import encoded_rows, hash_of
from dure.files import write_text
from dure.outputs import output_folder
from dure.reporting.console import RunConsole
from dure.reporting.tracker import trackers_for
from dure.runs.lock import held
from dure.runs.logs import captured_output
from dure.runs.resuming import require_continuable
from dure.runtime.placement import choose_profile
from dure.training import memory
from dure.training.run import RunRequest, foretold, leave_environment, recorded, settle, trained
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker

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
    family = load_family(config, notify)
    train = read_split(family, "train", config.data.train)
    family.survey({"train": train})
    tokenizer = family.load_tokenizer(lambda: texts_of(family, train))
    return family.load_model(tokenizer, choose_profile(profile, notify)), tokenizer


def load_datasets(
    config: Experiment, tokenizer: PreTrainedTokenizerBase, *, notify: Notify = logger.info
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Read, check and encode the training and validation rows of an experiment.

    Raises:
        UserError: A table is wrong, or the tokenizer is for it.
    """
    corpus = load_corpus(load_family(config, notify), tokenizer=tokenizer, notify=notify)
    return corpus.train, corpus.dev


class InteractiveTrainer:
    """Trains one model, and leaves what a run of the command line leaves."""

    def __init__(self, request: RunRequest, corpus: Corpus, model: PreTrainedModel, worker: Worker) -> None:
        self._request = request
        self._corpus = corpus
        self.path = request.path
        """Folder of the run."""
        self.loop = ModelTrainer(
            load_family(request.experiment, worker.notify),
            model,
            corpus.tokenizer,
            corpus.train,
            corpus.dev,
            profile=request.profile,
            folder=request.folder(),
            listeners=request.listeners,
            worker=worker,
        )
        """What trains: the model, its rows and the Hugging Face trainer (``loop.hf``)."""

    @property
    def compute_metrics(self) -> Callable[[EvalPrediction], dict[str, float]] | None:
        """What scores the answers to the validation rows; None when there are none, or only their loss counts."""
        return self.loop.compute_metrics

    def evaluate(self) -> dict[str, float]:
        """Validate the model as it is and return its metrics by name (``eval_…``).

        Raises:
            UserError: There are no validation rows.
        """
        return self.loop.evaluate()

    def train(self, *, resume: bool = False) -> dict[str, Any]:
        """Train to the end and leave the whole record in the folder: settings, environment, events, log and result.

        Args:
            resume: Continue what the folder holds.

        Returns:
            What :meth:`ModelTrainer.train` returns.

        Raises:
            UserError: As :meth:`ModelTrainer.train`; or another process works in the folder.
            RunError: Training failed; the folder says why.
        """
        request = replace(self._request, resume=resume or self._request.resume)
        profile, folder = request.profile, request.folder()
        with (
            held(folder.path),
            captured_output(folder.log),
            recorded(request, folder, self.loop.worker),
            memory.Usage(profile.device) as usage,
        ):
            write_text(folder.experiment, dump_yaml(request.experiment))
            leave_environment(request, self.loop.family, self._corpus, self.loop.worker)
            self._request = replace(request, resume=False)
            ahead = foretold(self.loop.family, self._corpus, self.loop.model, profile, self.loop.worker)
            result, outcome = trained(request, self.loop, self._corpus, usage, ahead)
            settle(request, result, self.loop.room)
        return outcome


def create_trainer(
    config: Experiment,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_dataset: Any,
    eval_dataset: Any = None,
    use_wandb: bool | None = None,
    logger: Any = None,
    *,
    profile: str | Profile | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
) -> InteractiveTrainer:
    """Make the trainer of a loaded model, in this process and without Ray.

    Args:
        config: The experiment; its ``tracking`` and ``wandb`` sections say where its numbers go.
        model: From :func:`load_model_and_tokenizer`, or any model of the experiment's family.
        tokenizer: Its tokenizer.
        train_dataset: Encoded rows: from :func:`load_datasets`, or any map-style dataset (with ``len`` and ``[row]``)
            whose rows are mappings of what the family's ``encode`` gives, padded or not.
        eval_dataset: Encoded rows that select the best checkpoint.
        use_wandb: Track with W&B or not, whatever the experiment says; offline without key or network.
        logger: Gets one-line messages by its ``info``; a :class:`dure.logging.Logger` as well.
        profile: The machine, by name or file; recognised when not given.
        output: Folder of the run; ``outputs/<name>/<timestamp>`` when not given.
        resume: Folder of the run to continue.

    Returns:
        A trainer with ``train()`` → ``{"final_model_path", "eval_metrics", …}``, ``evaluate()`` and
        ``compute_metrics``.

    Raises:
        UserError: A row is not what the family needs, or the run of ``resume`` was another.
    """
    heard = logger or logging.getLogger(__name__)
    if use_wandb is not None:
        others = [name for name in config.tracking if name != "wandb"]
        config = config.with_({"wandb.enabled": use_wandb, "tracking": others}, "use_wandb")
    chosen = choose_profile(profile, heard.info)
    given = resume if resume is not None else output
    path = output_folder(config.name, path_of(given), resume=resume is not None)
    if resume is not None:
        require_continuable(path, config, may_be_longer=True)
    family = load_family(config, heard.info)
    train, dev = (
        None if rows is None else encoded_rows(family, tokenizer, rows, name)
        for name, rows in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset))
    )
    assert train is not None
    request = RunRequest(config, chosen, path.resolve(), resume=resume is not None)
    console = RunConsole()

    def notify(message: str) -> None:
        heard.info(message)
        console.notified(message)

    listeners = (request.event_log("worker 0"), console, *trackers_for(config))
    hashes = {split: hash_of(rows) for split, rows in (("train", train), ("dev", dev)) if rows is not None}
    corpus = Corpus(tokenizer, train, dev, None, hashes, len(train))
    return InteractiveTrainer(replace(request, listeners=listeners), corpus, model, Worker(notify=notify))
