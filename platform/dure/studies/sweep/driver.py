"""``dure sweep``: from what the user asks for to the winner, its record and its picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.config.loading import checked, dump_yaml, load_space
from dure.config.schema import Experiment, Profile
from dure.config.spaces import Choice, Integer, LogUniform, SearchSpace
from dure.errors import UserError, nearest
from dure.files import read_json, write_json, write_text
from dure.metrics.metric import recorded
from dure.runs.folder import STUDY_FILE
from dure.secrets import HIDDEN, without_passwords
from dure.storage.pushing import kept_in_storage
from dure.studies.study import stored_study
from dure.studies.sweep.plan import SamplerName, StopperName, SweepMetric, SweepStudy, judged_by, looked_for

if TYPE_CHECKING:
    from dure.events import StudyListener

DEFAULT_SPACE = "learning_rate"
BASE = "experiment.yaml"
WINNER = "winner.yaml"
RESULTS = "lr_sweep_results"
_SUMMARY = "experiment_summary.json"
_LEARNING_RATE = "training.learning_rate"


def plan_sweep(
    experiment: Experiment,
    *,
    space: str | None = None,
    sampler: SamplerName | None = None,
    scheduler: StopperName | None = None,
    num_trials: int | None = None,
    tries: Sequence[str] = (),
    metrics: Sequence[str] = (),
    storage: str | None = None,
    stored: Path | None = None,
) -> SweepStudy:
    """Return the sweep that the options describe.

    Args:
        experiment: What is tried.
        space: Search space by name or file.
        sampler: Who proposes points.
        scheduler: Who stops bad trials.
        num_trials: Points in all.
        tries: Points to try first: ``1e-4``, or ``key=value,key=value``.
        metrics: What to look for: ``NAME``, ``NAME:min`` or ``NAME:max``; the experiment's own metric when empty.
        storage: Database for the search.
        stored: Folder of a sweep to continue: what is not given here stays as it was there. Space, metrics and
            storage cannot change.

    Raises:
        UserError: One of them is wrong, or changes what cannot change.
    """
    from dure.family import load_family

    before = None if stored is None else read_sweep(stored)
    if before is not None:
        other = None if _is_same_database(before, storage) else storage
        for option, value in (("--space", space), ("--metric", metrics), ("--storage", other)):
            if value not in (None, ()):
                raise UserError(
                    "it cannot change while a sweep goes on",
                    where=option,
                    hint=f"leave it out, or see {stored}",
                )
    searched = load_space(DEFAULT_SPACE if space is None else space) if before is None else before.space
    if before is None:
        named = [_metric(text) for text in metrics] or [SweepMetric(name=experiment.training.best_metric)]
        found = looked_for(named, load_family(experiment), "--metric")
        wanted = tuple(SweepMetric(name=each.name, direction=each.direction) for each in found)
    else:
        wanted = before.metrics
    points = [dict(point) for point in before.tries] if before is not None else []
    points += [point for text in tries if (point := parse_point(searched, text)) not in points]
    values: dict[str, Any] = {} if before is None else before.model_dump(mode="json")
    values |= {
        "name": f"{experiment.name[:90]}-sweep" if before is None else before.name,
        "space": searched.model_dump(mode="json"),
        "metrics": [metric.model_dump(mode="json") for metric in wanted],
        "tries": points,
        "seed": experiment.experiment.seed,
    }
    given = {"sampler": sampler, "scheduler": scheduler, "num_trials": num_trials, "storage": storage}
    values |= {key: value for key, value in given.items() if value is not None}
    return checked(SweepStudy, values, {("num_trials",): "--trials"}, "dure sweep")


@kept_in_storage
def sweep(
    study: SweepStudy,
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    shape: Callable[[Experiment], Experiment] = lambda experiment: experiment,
    resume: bool = False,
    address: str | None = None,
    follower: StudyListener | None = None,
) -> dict[str, Any]:
    """Run a sweep, or what is left of it, and return its summary.

    Leaves in the folder, beside one folder per trial: ``lr_sweep_results/`` with all points as JSON and their
    picture, and ``winner.yaml``, the experiment with the best values.

    Args:
        study: From :func:`plan_sweep`.
        experiment: What is tried.
        profile: The machine of every trial.
        path: Folder of the study.
        shape: What the common options make of each trial's experiment, such as its rehearsal.
        resume: Continue what the folder holds.
        address: Ray cluster to join.
        follower: Who hears of the study, here in the driver.

    Raises:
        UserError: The experiment, the space, the storage or the cluster is wrong.
        RunError: Ray does not start.
    """
    from dure.family import load_family
    from dure.reporting.tracking import trackers_for
    from dure.runs.folder import stored_experiment
    from dure.studies.adapter import run_study
    from dure.studies.sweep.strategy import Sweep

    path = path.resolve()
    if profile.storage.url is not None and study.storage is not None and study.storage.startswith("sqlite"):
        raise UserError(
            "the file of this search would not be in the profile's storage.url, and the sweep could not go on "
            "elsewhere",
            where=f"--storage {study.storage}",
            hint="leave it out: the search is then kept in the sweep's folder; or give a server",
        )
    metrics = looked_for(study.metrics, load_family(experiment), "metrics:")
    base = shape(judged_by(experiment, metrics[0]))
    if resume:
        stored_experiment(path, base)
    between, total = _samples(base) if study.scheduler != "none" else (1, 1)
    strategy = Sweep(
        study, experiment, path, shape=shape, samples_between_validations=between, total_samples=total
    )
    if not resume and strategy.search.trials():
        raise UserError(
            f"it holds a search of the name '{study.name}' in {path.name} already",
            where=f"--storage {study.storage}",
            hint="another --output, or --resume in the folder of that search",
        )
    write_text(path / STUDY_FILE, dump_yaml(study))
    write_text(path / BASE, dump_yaml(base))
    summary = run_study(
        strategy, profile=profile, path=path, follower=follower, listeners=trackers_for, address=address
    )
    rows = {
        name: shape(strategy.experiment(values)).training.effective_batch_size
        for name, values in summary["values"].items()
    }
    return _written(study, summary, rows, path, strategy.experiment)


def _written(
    study: SweepStudy,
    summary: dict[str, Any],
    samples_per_step: Mapping[str, int],
    path: Path,
    at: Callable[[Mapping[str, Any]], Experiment],
) -> dict[str, Any]:
    from dure.studies.sweep.plot import plot_sweep
    from dure.studies.sweep.report import sweep_text
    from dure.studies.sweep.results import sweep_points

    points = sweep_points(summary, samples_per_step)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    record = path / RESULTS / f"lr_sweep_{stamp}.json"
    picture = path / RESULTS / f"lr_sweep_plot_{stamp}.png"
    about = (
        "study",
        "state",
        "sampler",
        "scheduler",
        "metrics",
        "directions",
        "definitions",
        "best",
        "best_values",
        "front",
    )
    files: dict[str, str] = {"record": str(record)}
    write_json(record, {key: summary[key] for key in about} | {"points": points})
    if points:
        plot_sweep(
            picture,
            points,
            title=study.name,
            metrics=[recorded(summary, metric.name) for metric in study.metrics],
            parameters={key: _is_logarithmic(study.space, key) for key in study.space.ordered()},
            best=summary["best"],
        )
        files["plot"] = str(picture)
    if summary["best"] is not None:
        write_text(path / WINNER, dump_yaml(at(summary["best_values"])))
        files["winner"] = str(path / WINNER)
    summary = {**summary, **files}
    write_text(path / "experiment_summary.txt", sweep_text(summary))
    return summary


def _is_same_database(before: SweepStudy, given: str | None) -> bool:
    """Return whether a sweep's database is given again, which only one with a password has to be: no folder keeps that.

    Raises:
        UserError: It is not given again and has to be.
    """
    if given is None and before.storage is not None and HIDDEN in before.storage:
        raise UserError(
            "the folder keeps no password of its database",
            where=before.storage,
            hint="--storage URL once more, with the password",
        )
    return given is not None and without_passwords(given) == before.storage


def read_sweep(path: Path) -> SweepStudy:
    """Return the sweep of a folder.

    Raises:
        UserError: The folder holds none.
    """
    return stored_study(path, SweepStudy, "sweep")


def winner_overrides(path: Path) -> list[str]:
    """Return the best values of a finished or interrupted sweep as ``key=value`` overrides.

    They are what ``dure train E --from-sweep DIR`` lays over the experiment, before the user's own.

    Raises:
        UserError: The folder holds no sweep, or no trial of it completed.
    """
    read_sweep(path)
    file = path / _SUMMARY
    best = read_json(file, what="summary of a sweep").get("best_values") if file.is_file() else None
    if best and not isinstance(best, dict):
        raise UserError(f"'best_values' is {best!r}", where=str(file), expected="keys and values")
    if not best:
        raise UserError(
            "no trial of this sweep completed", where=str(path), hint=f"dure sweep … --resume --output {path}"
        )
    return [f"{key}={_override_text(value)}" for key, value in best.items()]


def _override_text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def judged_ways(study: SweepStudy, experiment: Experiment) -> list[Experiment]:
    """Return the experiment as each metric would judge it whose name can be checked before anything runs.

    These are the first, which ranks, and validation metrics. Figures of a run (``seconds``) and of a class
    (``eval_f1[긍정]``) are known only once rows are read.
    """
    from dure.family import load_family

    first, *others = study.metrics
    named = [each for each in others if each.name.startswith("eval_") and "[" not in each.name]
    metrics = looked_for([first, *named], load_family(experiment), "--metric")
    return [judged_by(experiment, each) for each in metrics]


def _metric(text: str) -> SweepMetric:
    name, colon, direction = text.partition(":")
    if not name or (colon and direction not in ("min", "max")):
        raise UserError(f"'{text}' is no metric", where="--metric", expected="NAME, NAME:min or NAME:max")
    return checked(SweepMetric, {"name": name, "direction": direction or None}, {}, "--metric")


def parse_point(space: SearchSpace, text: str) -> dict[str, Any]:
    """Read a point as the command line gives it: ``1e-4``, or ``key=value,key=value``.

    A value alone is the learning rate, or the value of the only parameter.

    Raises:
        UserError: A key is not searched, or a value is none of its kind.
    """
    keys = list(space.parameters)
    if "=" not in text:
        only = _LEARNING_RATE if _LEARNING_RATE in keys else keys[0] if len(keys) == 1 else None
        if only is None:
            raise UserError(
                f"'{text}' does not say of which parameter it is",
                where="--try",
                expected=f"key=value, with a key of: {', '.join(keys)}",
            )
        text = f"{only}={text}"
    point: dict[str, Any] = {}
    for part in text.split(","):
        key, _, raw = (piece.strip() for piece in part.partition("="))
        if key not in keys:
            raise UserError(
                f"'{key}' is not searched",
                where="--try",
                expected=f"one of: {', '.join(keys)}",
                hint=nearest(key, keys),
            )
        point[key] = _parsed(space, key, raw)
    return point


def _parsed(space: SearchSpace, key: str, raw: str) -> Any:
    parameter = space.parameters[key]
    if isinstance(parameter, Choice):
        found = [value for value in parameter.values if str(value) == raw or _override_text(value) == raw]
        expected = f"one of: {', '.join(str(value) for value in parameter.values)}"
    else:
        expected = f"a number from {parameter.low:g} to {parameter.high:g}"
        try:
            number = int(raw) if isinstance(parameter, Integer) else float(raw)
            found = [number] if space.contains(key, number) else []
        except ValueError:
            found = []
    if not found:
        raise UserError(f"{key} cannot be {raw}", where="--try", expected=expected)
    return found[0]


def _samples(experiment: Experiment) -> tuple[int, int]:
    """Return the training rows between two validations, and those of a whole trial."""
    from dure.family import load_family
    from dure.family.corpus import read_split
    from dure.training.arguments import steps_per_epoch, total_steps

    training, data = experiment.training, experiment.data
    rows = len(read_split(load_family(experiment), "train", data.train).dataset)
    rows = max(1, round(min(rows, data.max_train_rows or rows) * data.train_ratio))
    steps = steps_per_epoch(experiment, rows) if training.eval_every == "epoch" else training.eval_every
    return steps * training.effective_batch_size, total_steps(
        experiment, rows
    ) * training.effective_batch_size


def _is_logarithmic(space: SearchSpace, key: str) -> bool:
    parameter = space.parameters[key]
    return isinstance(parameter, LogUniform) or (isinstance(parameter, Integer) and parameter.log)
