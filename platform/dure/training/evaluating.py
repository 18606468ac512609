"""Scoring the final model of a run on a table: what ``dure evaluate`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PrinterCallback

from dure.config.loading import check_reading, load_record
from dure.config.schema import Profile
from dure.data.overlap import overlap
from dure.data.tables import Table, read_table
from dure.errors import UserError, counted
from dure.events import Notify, silent
from dure.family.corpus import cache_folder, encode_split, read_splits
from dure.family.loading import family_of_run, load_family
from dure.family.run_weights import finished_run
from dure.family.saved_model import read_model
from dure.runs.folder import RunFolder, finite
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker

_NOT_TRAINED = (
    "training.compile=false",
    "training.batch_tokens=null",
    "training.ema=null",
    "training.on_oom=error",
    "objective.class_weights=null",
)
"""What training alone needs: it would ask for a compiler, refuse long rows, take memory, or weigh the classes of the table."""


def evaluate_table(
    run: Path, source: str, *, overrides: Sequence[str] = (), profile: Profile, notify: Notify
) -> dict[str, Any]:
    """Score the final model of a run on the rows of a table, as validation scores.

    Nothing is written into the folder of the run. ``overrides`` are ``data.key=value`` texts of how the table is read,
    over what the run was trained with.

    Returns:
        ``run``, ``experiment``, ``family``, ``model``, ``table``, ``rows``, ``data`` (SHA-256 of the rows), ``metrics``
        (``eval_…``), ``definitions`` of them, and ``notes`` on how they were computed, ``training_texts`` among them
        where rows have a text of the training table.

    Raises:
        UserError: There is no finished run, or the table is not what its family needs.
    """
    check_reading(overrides, with_columns=True)
    folder = finished_run(run)
    family = family_of_run(folder, notify, (*_NOT_TRAINED, *overrides))
    family.profile = profile
    experiment = family.experiment
    data = experiment.data
    table = read_table(source, family.roles, data.columns, reading=data, cache_folder=cache_folder())
    for message in table.messages():
        notify(message)
    model, tokenizer = read_model(family, folder.final_model)
    family.check_targets(table)
    rows = encode_split(family, tokenizer, table, notify=notify)
    family.notify = silent  # it would tell what a step of a training on these rows sees
    with TemporaryDirectory(prefix="dure-evaluate-") as scratch:
        trainer = ModelTrainer(
            family,
            model,
            tokenizer,
            rows,
            rows,
            profile=profile.with_({"deepspeed": None}),
            folder=RunFolder(Path(scratch)),
            worker=Worker(notify=notify),
        )
        trainer.hf.remove_callback(PrinterCallback)  # it would print figures between those of the caller
        metrics = trainer.evaluate()
    known = {name: metric for name in metrics if (metric := family.metric(name)) is not None}
    return {
        "run": str(run),
        "experiment": experiment.name,
        "family": experiment.family,
        "model": str(folder.final_model),
        "table": source,
        "rows": table.num_rows,
        "data": table.content_hash(),
        "metrics": finite({name: metrics[name] for name in known}),
        "definitions": {name: metric.definition() for name, metric in known.items()},
        "notes": {**family.metric_notes(), **_trained_texts(folder, table)},
    }


def _trained_texts(folder: RunFolder, table: Table) -> dict[str, str]:
    """Return how many rows of a table have a text that a run trained on, as a note; none where that is not known.

    It is known as long as the run's tables are where they were, with the same rows. Of a fold it is not looked for.
    """
    experiment = load_record(folder.experiment)
    if experiment.data.fold is not None:
        return {}
    others = {f"data.{split}": None for split in ("dev", "test") if split not in experiment.data.parts}
    try:
        family = load_family(experiment.with_(others))
        train = read_splits(family).tables["train"]
    except (UserError, OSError):
        return {}
    if train.content_hash() != folder.read_environment().get("data", {}).get("train"):
        return {}
    inputs = [role.name for role in family.roles if role.is_input and role.name in table.dataset.column_names]
    known = len(overlap(table, train, inputs))
    told = f"{known:,} of {counted(table.num_rows, 'row')} have a text of the training table, which flatters the scores"
    return {"training_texts": told} if known else {}
