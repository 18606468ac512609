"""Every verb that trains, as a function of names, files and settings: what the command line does, for Python."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from dure.config.given import Names, Overrides, name_of, names_of, overrides_of, path_of
from dure.config.loading import checked
from dure.config.schema import Experiment, Profile
from dure.events import Notify
from dure.runs.folder import RunResult
from dure.studies import life_cycle
from dure.studies.batch.planning import plan_batch
from dure.studies.batch.results import BatchResults
from dure.studies.crossval.plan import plan_crossval
from dure.studies.crossval.results import CrossvalResults
from dure.studies.life_cycle import Asked, stored_for
from dure.studies.plan import StudyPlan
from dure.studies.progressive.plan import ProgressiveStudy, plan_progressive
from dure.studies.progressive.results import ProgressiveResults
from dure.studies.results import StudyResults
from dure.studies.study import load_study, load_study_of
from dure.studies.sweep.plan import plan_sweep
from dure.studies.sweep.results import SweepResults
from dure.studies.unified.plan import UnifiedStudy
from dure.studies.unified.results import UnifiedResults

logger = logging.getLogger(__name__)


class Common(TypedDict, total=False):
    """What every function here takes beside its own arguments, each with the default of the command line."""

    profile: str | Path | Profile | None
    """Machine profile, or its name or file; recognised when not given."""
    address: str | None
    """Ray cluster to join."""
    output: str | Path | None
    """Folder of the run or study; ``outputs/NAME/TIME`` when not given."""
    resume: bool | str | Path
    """Continue in ``output``, or in the newest folder of that name; a path continues there."""
    rehearse: bool
    """A miniature model on few rows for few steps."""
    one_epoch: bool
    """One pass over the data."""
    samples: int | None
    """Use at most so many training rows, and validation rows."""
    notify: Notify
    """Gets one-line messages before anything starts; progress goes to stderr."""


@dataclass(frozen=True)
class TrainedRun(RunResult):
    """How a run ended, and where it lies: paths of the result are relative to it."""

    path: Path = Path()

    @property
    def final_model(self) -> Path:
        """Folder of the final model, for ``from_pretrained``."""
        return self.path / "final_model"


def train(
    experiment: str | Path | Experiment,
    overrides: Overrides = (),
    *,
    epochs: int | None = None,
    from_sweep: str | Path | None = None,
    **common: Unpack[Common],
) -> TrainedRun:
    """Run one experiment, as ``dure train`` does.

    Args:
        experiment: Name, file, or an experiment as it is.
        overrides: ``a.b=value`` texts.
        epochs: Passes over the data.
        from_sweep: Take the best values of this folder of a sweep.
        common: See :class:`Common`.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Training failed.
    """
    from dure.studies.sweep.driver import experiment_to_train

    asked = asked_for(common)
    chosen = experiment_to_train(
        experiment if isinstance(experiment, Experiment) else name_of(experiment),
        overrides_of(overrides),
        asked,
        from_sweep=path_of(from_sweep),
        epochs=epochs,
    )
    result, path = life_cycle.run_experiment(chosen, asked)
    return TrainedRun(**vars(result), path=path)


def run(study: str | Path | StudyPlan, overrides: Overrides = (), **common: Unpack[Common]) -> StudyResults:
    """Run a study of any kind, as ``dure run`` does, and return its record.

    Args:
        study: A study, or its name or file.
        overrides: ``a.b=value`` texts, laid over its experiments after its own.
        common: See :class:`Common`.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start, or a step failed.
    """
    plan = study if isinstance(study, StudyPlan) else load_study(name_of(study))
    results: StudyResults = life_cycle.run(plan.with_overrides(overrides_of(overrides)), asked_for(common))
    return results


def batch(
    *experiments: Names,
    overrides: Overrides = (),
    only: str | None = None,
    seeds: int | None = None,
    **common: Unpack[Common],
) -> BatchResults:
    """Run experiments side by side, as ``dure batch`` does.

    Args:
        experiments: A study by name or file, or experiments.
        overrides: ``a.b=value`` texts for all of them.
        only: Numbers or names of those that run, with commas.
        seeds: Runs of every experiment, each by another seed; means are compared then.
        common: See :class:`Common`.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start.
    """
    study = plan_batch(names_of(*experiments), overrides=overrides_of(overrides), only=only, seeds=seeds)
    results: BatchResults = life_cycle.run(study, asked_for(common))
    return results


def sweep(
    experiment: str | Path, overrides: Overrides = (), *, trials: int | None = None, **options: Any
) -> SweepResults:
    """Search settings of an experiment, as ``dure sweep`` does.

    Args:
        experiment: Name or file.
        overrides: ``a.b=value`` texts.
        trials: Points in all.
        options: Those of the verb, by their names: ``space``, ``sampler``, ``tries``, ``scheduler``, ``metrics``,
            ``storage``; and what :class:`Common` has.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start.
    """
    asked, own = _parted(options)
    name = name_of(experiment)
    laid = overrides_of(overrides)
    before = stored_for(plan_sweep(name, overrides=laid), asked)
    study = plan_sweep(name, overrides=laid, num_trials=trials, before=before, **own)
    results: SweepResults = life_cycle.run(study, asked)
    return results


def progressive(experiment: str | Path, overrides: Overrides = (), **options: Any) -> ProgressiveResults:
    """Train on more and more of the data, as ``dure progressive`` does.

    Args:
        experiment: Name or file.
        overrides: ``a.b=value`` texts.
        options: Those of the verb, by their names: ``start_ratio``, ``step_size``, ``max_ratio``, ``ratios``,
            ``epochs_per_stage``, ``max_batch_size``, ``max_memory_mb``, ``candidates``, ``num_candidates``,
            ``reduction``, ``min_gain``, ``on_baseline``; and what :class:`Common` has.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start, or a stage failed.
    """
    asked, own = _parted(options)
    said = {"experiment": name_of(experiment), "overrides": overrides_of(overrides)}
    bare = checked(ProgressiveStudy, said, {}, "dure.progressive")
    study = plan_progressive(bare, before=stored_for(bare, asked), **own)
    results: ProgressiveResults = life_cycle.run(study, asked)
    return results


def crossval(
    *experiments: Names,
    overrides: Overrides = (),
    folds: int | None = None,
    drop_worse: bool = False,
    **common: Unpack[Common],
) -> CrossvalResults:
    """Cross-validate experiments on the same folds, as ``dure crossval`` does.

    Args:
        experiments: Names or files.
        overrides: ``a.b=value`` texts for all of them.
        folds: Parts that the training table is cut into.
        drop_worse: Train an experiment no further once it is clearly worse.
        common: See :class:`Common`.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: Ray does not start.
    """
    study = plan_crossval(
        names_of(*experiments), overrides=overrides_of(overrides), folds=folds, drop_worse=drop_worse
    )
    results: CrossvalResults = life_cycle.run(study, asked_for(common))
    return results


def unified(
    preset: str = "730m",
    overrides: Overrides = (),
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    sweep: bool | None = None,
    crossover: bool | None = None,
    **common: Unpack[Common],
) -> UnifiedResults:
    """Run the unified training of a preset: sweep, training, sweet spots of its modules, crossover.

    Args:
        preset: Size of the model: ``730m``, ``800m``, ``320m`` or ``tiny``; or a study of this kind by name or file.
        overrides: ``a.b=value`` texts.
        epochs: Passes over the rows.
        batch_size: Rows of one forward pass; accumulation keeps the effective batch.
        sweep: Whether the learning rate is searched first.
        crossover: Whether sweet spots are found and crossed over after the training.
        common: See :class:`Common`.

    Raises:
        UserError: Something that was given is wrong; nothing has started.
        RunError: A step failed.
    """
    from dure.config.library import available

    named = f"unified_{preset}"
    study = load_study_of(UnifiedStudy, named if named in available("study") else preset)
    own = {"epochs": epochs, "batch_size": batch_size, "sweep": sweep, "crossover": crossover}
    said = {key: value for key, value in own.items() if value is not None}
    results: UnifiedResults = life_cycle.run(
        study.with_overrides(overrides_of(overrides)).with_values(**said), asked_for(common)
    )
    return results


def asked_for(common: Common) -> Asked:
    """Return the common options as the life of a study takes them."""
    given: dict[str, Any] = dict(common)
    resume = given.pop("resume", False)
    if not isinstance(resume, bool):
        given["output"], resume = resume, True
    given["output"] = path_of(given.get("output"))
    if isinstance(given.get("profile"), Path):
        given["profile"] = str(given["profile"])
    return Asked(**{"notify": logger.info, **given, "resume": resume})


def _parted(options: dict[str, Any]) -> tuple[Asked, dict[str, Any]]:
    """Return the common options, and those of a verb."""
    common = {key: options.pop(key) for key in Common.__annotations__ if key in options}
    return asked_for(Common(**common)), options  # type: ignore[typeddict-item]
