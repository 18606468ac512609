"""What dure does, as functions: every verb of the command line is one of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dure.config import library
from dure.config.families import trusting
from dure.config.loading import load_experiment, load_profile, load_space
from dure.config.rehearsal import with_options
from dure.config.schema import Profile
from dure.events import Notify
from dure.outputs import output_folder, pull
from dure.runtime.experiment import train
from dure.runtime.placement import choose_profile
from dure.studies.plan import StudyPlan
from dure.studies.results import StudyResults
from dure.studies.study import load_study, read_results

__all__ = [
    "READERS",
    "catalogue",
    "choose_profile",
    "forecast",
    "load_config",
    "load_experiment",
    "load_profile",
    "load_study",
    "output_folder",
    "predict",
    "pull",
    "read_results",
    "run",
    "score",
    "train",
    "with_options",
]

load_config = load_experiment
READERS: dict[library.Kind, Callable[[str], Any]] = {
    "experiment": load_experiment,
    "study": load_study,
    "space": load_space,
    "profile": load_profile,
}
"""How a YAML file of each kind is read, by its name or path."""


def run(
    study: str | StudyPlan,
    overrides: Sequence[str] = (),
    *,
    profile: str | None = None,
    address: str | None = None,
    output: Path | None = None,
    resume: bool = False,
    rehearse: bool = False,
    one_epoch: bool = False,
    samples: int | None = None,
) -> StudyResults:
    """Run a study of any kind, as ``dure run`` does, and return its record.

    Args:
        study: A study, or its name or file.
        overrides: ``a.b=value`` texts, laid over its experiments after its own.
        profile: Machine profile by name or file; recognised when not given.
        address: Ray cluster to join.
        output: Folder of the study.
        resume: Continue in ``output``, or in the newest folder of the study's name.
        rehearse: A miniature model on few rows for few steps.
        one_epoch: One pass over the data.
        samples: Use at most so many training rows, and validation rows.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start, or a step failed.
    """
    from dure.reporting.console import terminal
    from dure.studies import life_cycle

    plan = load_study(study) if isinstance(study, str) else study
    with terminal() as screen:
        asked = life_cycle.Asked(
            profile=profile,
            address=address,
            output=output,
            resume=resume,
            rehearse=rehearse,
            one_epoch=one_epoch,
            samples=samples,
            notify=screen.say,
        )
        return life_cycle.run(plan.with_overrides(overrides), asked, screen=screen)


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
    notify: Notify,
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
        notify: Gets one-line messages.
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
            notify=notify,
        )


def forecast(
    what: str,
    overrides: Sequence[str] = (),
    *,
    profile: str | None = None,
    rehearse: bool = False,
    samples: int | None = None,
    measure: int | None = None,
    notify: Notify,
) -> dict[str, Any]:
    """Foretell what an experiment or a study takes; see ``dure.studies.forecasting``.

    Args:
        what: Experiment or study, by name or file.
        overrides: ``a.b=value`` texts.
        profile: Machine profile by name or file; recognised when not given.
        rehearse: Of the miniature.
        samples: Use at most so many training rows, and validation rows.
        measure: Real steps that are trained first.
        notify: Gets one-line messages.

    Raises:
        UserError: Something that was given is wrong.
    """
    from functools import partial

    from dure.studies.forecasting import forecast_experiments

    return forecast_experiments(
        what,
        overrides,
        # That of another machine can be foretold too.
        machine=choose_profile(None, notify) if profile is None else load_profile(profile),
        shape=partial(with_options, rehearse=rehearse, one_epoch=False, samples=samples),
        measure=measure,
        notify=notify,
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
    task: Any = "generation",
    multi_reference: Any = "best",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a table of predictions against a table of references; see ``dure.metrics.scoring``.

    ``overrides`` are ``data.key=value`` texts of how both tables are read.
    """
    from dure.config.loading import reading_of
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
        "studies": {name: f"{each.words}: {each.description}" for name, each in found["study"].items()},
        "spaces": {name: each.description for name, each in found["space"].items()},
        "profiles": {name: each.description for name, each in found["profile"].items()},
    }
