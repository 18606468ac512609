"""What dure does, as functions: every verb of the command line is one of these."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config import library
from dure.config.families import trusting
from dure.config.loading import load_experiment, load_profile, load_space
from dure.config.rehearsal import rehearsal_of
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.outputs import bring, output_folder
from dure.runtime.experiment import train
from dure.studies.study import batch, check, check_rows, check_some_rows, load_study, study_experiments

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


__all__ = [
    "READERS",
    "batch",
    "bring",
    "catalogue",
    "check",
    "check_rows",
    "check_some_rows",
    "choose_profile",
    "load_config",
    "load_experiment",
    "load_profile",
    "load_study",
    "output_folder",
    "predict",
    "score",
    "shaped",
    "study_experiments",
    "train",
]

load_config = load_experiment
READERS: dict[library.Kind, Callable[[str], Any]] = {
    "experiment": load_experiment,
    "study": load_study,
    "space": load_space,
    "profile": load_profile,
}
"""How a YAML file of each kind is read, by its name or path."""
Tell = Callable[[str], None]


def shaped(
    experiment: Experiment, *, rehearse: bool = False, one_epoch: bool = False, samples: int | None = None
) -> Experiment:
    """Return the experiment as the common options shape it.

    Args:
        experiment: As its YAML and the overrides say it.
        rehearse: A miniature model on few rows for few steps.
        one_epoch: One pass over the data.
        samples: Use at most so many training rows, and validation rows.

    Raises:
        UserError: ``samples`` is not positive.
    """
    if samples is not None and samples < 1:
        raise UserError(f"{samples} rows are none", where="--samples", expected="a number from 1")
    if one_epoch:
        experiment = experiment.with_({"training.epochs": 1}, "--one-epoch")
    if samples is not None:
        data = experiment.data
        limits = {
            "data.max_train_rows": min(samples, data.max_train_rows or samples),
            "data.max_dev_rows": min(samples, data.max_dev_rows or samples),
        }
        experiment = experiment.with_(limits, "--samples")
    return rehearsal_of(experiment) if rehearse else experiment


def choose_profile(name: str | None, tell: Tell, *, address: str | None = None) -> Profile:
    """Return the profile of a name, or recognise the machine and tell the choice.

    Args:
        name: Name or file of a profile.
        tell: Gets the choice in a line.
        address: Ray cluster that will run things; without one this machine must have the profile's device.

    Raises:
        UserError: There is no such profile, its device is not here, or the address is empty.
    """
    from dure.runtime.placement import recognised_profile, require_device

    if address is not None and not address.strip():
        raise UserError(
            "it is empty",
            where="--address",
            expected="host:port or auto",
            hint="leave the option out for a local cluster",
        )
    if name is not None:
        chosen = load_profile(name)
        if address is None:
            require_device(chosen)
        return chosen
    profile, why = recognised_profile()
    tell(why)
    return profile


def predict(
    run: Path,
    source: str | Path,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    force: bool = False,
    fold: int | None = None,
    profile: Profile,
    progress: Callable[[int, int], None],
    tell: Tell,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Predict a table with the final model of a run, or with all folds of a cross-validation.

    Args:
        run: Folder of a run or of an experiment's cross-validation.
        source: Table to predict.
        output: File to write: .csv, .tsv, .jsonl or .xlsx.
        overrides: ``data.key=value`` texts of how the table is read.
        force: Whether a file that is there is replaced.
        fold: Take the model of this fold only.
        profile: The machine.
        progress: Gets rows done and rows in all.
        tell: Gets one-line messages.
        trust_code: Import the family that the run's folder names also when it did not come with dure.

    Raises:
        UserError: See ``dure.family.predicting``; or there is no such fold.
    """
    from dure.family.predicting import predict_file
    from dure.studies.crossval.driver import fold_runs

    with trusting(trust_code):
        return predict_file(
            fold_runs(run, fold),
            str(source),
            output,
            overrides=overrides,
            force=force,
            profile=profile,
            progress=progress,
            tell=tell,
        )


def score(
    predictions: Path,
    references: Path,
    *,
    id_column: str = "fname",
    prediction_column: str = "summary",
    reference_columns: Sequence[str] = ("summary",),
    tokenizer: Any = "morpheme",
    special_tokens: Sequence[str] = (),
    task: Any = "summarization",
    multi_reference: Any = "best",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a table of predictions against a table of references; see ``dure.metrics.scoring``.

    ``overrides`` are ``data.key=value`` texts of how both tables are read.
    """
    from dure.config.reading import reading_of
    from dure.family.corpus import cache_folder
    from dure.metrics.scoring import score_files

    return score_files(
        predictions,
        references,
        id_column=id_column,
        prediction_column=prediction_column,
        reference_columns=reference_columns,
        tokenizer=tokenizer,
        special_tokens=special_tokens,
        task=task,
        multi_reference=multi_reference,
        reading=reading_of(overrides),
        cache_folder=cache_folder(),
    )


def catalogue() -> dict[str, dict[str, str]]:
    """Return what there is: experiments, studies, search spaces and profiles by name, each with a sentence."""
    found = {
        kind: {name: read(str(file)) for name, file in library.available(kind).items()}
        for kind, read in READERS.items()
    }
    return {
        "experiments": {name: each.experiment.description for name, each in found["experiment"].items()},
        "studies": {name: each.description for name, each in found["study"].items()},
        "spaces": {name: each.description for name, each in found["space"].items()},
        "profiles": {name: each.description for name, each in found["profile"].items()},
    }
