"""A search kept in Optuna's own storage: opening it, its samplers, and points in Optuna's terms."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna

from dure.config.spaces import Choice, Integer, LogUniform, SearchSpace, Uniform, Values
from dure.errors import UserError, named
from dure.metrics.metric import Metric
from dure.studies.sweep.plan import SweepStudy, range_of

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

JOURNAL = "optuna.journal"
"""File of the study's folder that keeps the search, unless a database does."""


def open_study(sweep: SweepStudy, path: Path, metrics: Sequence[Metric]) -> optuna.Study:
    """Open the search of a study, or begin it; points are drawn by a :func:`sampler` each.

    Plain Optuna opens the same: ``optuna.load_study(study_name=None, storage=JournalStorage(
    JournalFileBackend("optuna.journal")))``.

    Raises:
        UserError: The database does not answer, holds a search of other metrics, or the sampler cannot search
            this space.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where = f"--storage {sweep.storage}" if sweep.storage else str(path / JOURNAL)
    directions: list[Literal["minimize", "maximize"]] = [
        "maximize" if metric.higher_is_better else "minimize" for metric in metrics
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            storage = _storage(sweep, path)
            # A folder's own file has one search, also where the folder was renamed or moved.
            known = [] if sweep.storage is not None else optuna.get_all_study_names(storage)
            # In a database that several sweeps share, the folder tells sweeps of one experiment apart.
            study = optuna.create_study(
                storage=storage,
                study_name=known[0] if known else f"{sweep.name}-{path.name}",
                directions=directions,
                load_if_exists=True,
            )
            sampler(sweep, place=0)  # says now what it cannot search
        except UserError:
            raise
        except Exception as error:  # every database has errors of its own
            raise UserError(
                f"the database cannot be opened ({named(error, 300)})",
                where=where,
                expected="a URL of SQLAlchemy, such as sqlite:///sweeps.db or postgresql://host/name",
            ) from error
        if [direction.name.lower() for direction in study.directions] != directions:
            raise UserError(
                f"the search '{sweep.name}' was begun with {len(study.directions)} metrics of other directions",
                where=where,
                hint="the same metrics, or another study",
            )
        study.set_metric_names([metric.name for metric in metrics])
    return study


def _storage(sweep: SweepStudy, path: Path) -> BaseStorage:
    if sweep.storage is not None:
        return optuna.storages.RDBStorage(sweep.storage)
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    path.mkdir(parents=True, exist_ok=True)
    journal = str(path / JOURNAL)
    # Who holds the folder is the only writer, so that a lock which is there is left of one who was killed.
    Path(f"{journal}.lock").unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))


def sampler(sweep: SweepStudy, *, place: int) -> BaseSampler:
    """Return who proposes the point of a place, from nothing but the seed, that place and what the storage holds.

    Every place, from 0, has random numbers of its own. A sampler that lived as long as its session would draw other points
    after a resume than without one.

    Raises:
        UserError: The sampler cannot search this space, or lacks a package.
    """
    # Streams of their own: seed + place would give neighbouring seeds the same points, shifted by a place.
    seed = int(np.random.SeedSequence(sweep.seed, spawn_key=(place,)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match sweep.sampler:
            case "tpe":
                # Jointly over all parameters, and over each set of conditional ones (group).
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
            case "random" | "grid":  # the points of a grid are queued, and none is drawn
                return optuna.samplers.RandomSampler(seed=seed)
            case "qmc":
                # One sequence, of which the storage says how far it is: so its seed stays.
                return optuna.samplers.QMCSampler(
                    scramble=True,
                    seed=sweep.seed,
                    warn_independent_sampling=False,
                    warn_asynchronous_seeding=False,
                )
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=seed, n_startup_trials=8, warn_independent_sampling=False
                )
            case "cmaes":
                return _cmaes(sweep.space, seed)


def _cmaes(space: SearchSpace, seed: int) -> BaseSampler:
    numeric = [key for key, parameter in space.parameters.items() if not isinstance(parameter, Choice)]
    if len(numeric) < 2:
        raise UserError(
            f"CMA-ES learns how numbers act together, and this space has {len(numeric)}",
            where="--sampler cmaes",
            expected="a space of two numbers or more",
            hint="--sampler tpe or --sampler gp",
        )
    # Optuna itself misses it only at the first proposal.
    if importlib.util.find_spec("cmaes") is None:
        raise UserError(
            "the package 'cmaes' is not installed", where="--sampler cmaes", hint="pip install cmaes"
        )
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def proposed(trial: optuna.trial.BaseTrial, space: SearchSpace) -> dict[str, Any]:
    """Let a trial draw the values of every parameter that is active at its point."""
    values: dict[str, Any] = {}
    for key in space.ordered():
        if not space.is_active(key, values):
            continue
        match space.parameters[key]:
            case LogUniform(low=low, high=high):
                values[key] = trial.suggest_float(key, low, high, log=True)
            case Uniform(low=low, high=high):
                values[key] = trial.suggest_float(key, low, high)
            case Integer(low=low, high=high, log=log):
                values[key] = trial.suggest_int(key, low, high, log=log)
            case Choice(values=choices):
                labels = [_label(choice) for choice in choices]
                chosen = trial.suggest_categorical(key, labels)
                values[key] = choices[labels.index(chosen)]
    return values


def queued(space: SearchSpace, values: Values) -> dict[str, Any]:
    """Return a point of ``--try`` as Optuna queues it.

    Raises:
        UserError: It names a key that is not searched, or lies outside of the space.
    """
    for key, value in values.items():
        if key not in space.parameters:
            raise UserError(
                f"'{key}' is not searched", where="--try", expected=f"one of: {', '.join(space.parameters)}"
            )
        if not space.contains(key, value):
            raise UserError(
                f"{key}={value} lies outside of the space", where="--try", expected=range_of(space, key)
            )
    return {
        key: _label(value) if isinstance(space.parameters[key], Choice) else value
        for key, value in values.items()
    }


def _label(choice: Any) -> Any:
    """Return a choice as Optuna keeps it: lists, which it has no column for, as JSON."""
    if choice is None or isinstance(choice, bool | int | float | str):
        return choice
    return json.dumps(choice, ensure_ascii=False, default=list)
