"""``dure progressive``: from what the user asks for to stages, summary and picture."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dure.config.loading import checked, dump_yaml, load_experiment, load_space, with_values
from dure.config.progressive import OnBaseline, ProgressiveStudy
from dure.config.ratios import as_number, as_ratio, schedule
from dure.config.schema import Experiment, Profile
from dure.errors import UserError
from dure.files import write_json, write_text, written_beside

if TYPE_CHECKING:
    from dure.background import Background
    from dure.tuning.events import StudyListener

STUDY = "study.yaml"
BASE = "experiment.yaml"
RESULTS = "progressive_training_results.json"
SUMMARY = "progressive_training_summary.txt"
PLOT = "progressive_training.png"
PID = "progressive_training.pid"
_START, _STEP, _END = "0.1", "0.1", "1"
_POINTS = 5


def plan_progressive(
    experiment: Experiment,
    *,
    start_ratio: str | None = None,
    step_size: str | None = None,
    max_ratio: str | None = None,
    epochs_per_stage: int | None = None,
    max_memory_mb: int | None = None,
    candidates: Sequence[str] = (),
    num_candidates: int | None = None,
    reduction: int | None = None,
    min_gain: float | None = None,
    on_baseline: OnBaseline | None = None,
    stored: Path | None = None,
) -> ProgressiveStudy:
    """Return the progressive training that the options describe.

    Args:
        experiment: What is trained.
        start_ratio: Part of the data of the first stage. In a folder that holds stages of smaller ratios
            already, those stay before it, and training goes on from the last of them.
        step_size: What each stage adds.
        max_ratio: Part of the data of the last stage.
        epochs_per_stage: Passes over the rows of a stage.
        max_memory_mb: Above this, a warning is told and the next stage takes a smaller batch at a time.
        candidates: Settings to try: ``key=value,value`` (several make every combination), or a search space by
            name or file, of which evenly spaced points are taken.
        num_candidates: Points along every range of such a space.
        reduction: η of the halving.
        min_gain: Stop when more data gains less.
        on_baseline: What happens to a candidate that is no better than the trivial baseline.
        stored: Folder of a progressive training to continue: what is not given here stays as it was there.

    Raises:
        UserError: One of them is wrong, or changes what cannot change.
    """
    before = None if stored is None else read_progressive(stored)
    values: dict[str, Any] = {} if before is None else before.model_dump(mode="json")
    values["name"] = f"{experiment.name[:80]}-progressive" if before is None else before.name
    if before is None or any((start_ratio, step_size, max_ratio)):
        ratios = _schedule(start_ratio, step_size, max_ratio, () if before is None else before.ratios)
        values["ratios"] = [as_number(ratio) for ratio in ratios]
    if num_candidates is not None and num_candidates < 1:
        raise UserError(
            f"{num_candidates} points are none", where="--num-candidates", expected="a number from 1"
        )
    if num_candidates is not None and all("=" in text for text in candidates):
        raise UserError("it needs a search space", where="--num-candidates", hint="--candidates SPACE")
    if candidates:
        tried = _candidates(experiment, candidates, num_candidates or _POINTS)
        if before is not None and list(before.candidates) != tried:
            raise UserError(
                "they cannot change while a training goes on",
                where="--candidates",
                hint=f"leave it out, or see {stored}",
            )
        values["candidates"] = tried
    given = {
        "epochs_per_stage": epochs_per_stage,
        "max_memory_mb": max_memory_mb,
        "reduction": reduction,
        "min_gain": min_gain,
        "on_baseline": on_baseline,
        "start_ratio": start_ratio,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    options: dict[tuple[str, ...], str] = {
        (key,): f"--{key.replace('_', '-')}" for key in (*given, "candidates")
    }
    options["reduction",] = "--eta"
    return checked(ProgressiveStudy, values, options, "dure progressive")


def progressive(
    study: ProgressiveStudy,
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    shape: Callable[[Experiment], Experiment] = lambda experiment: experiment,
    resume: bool = False,
    begin_again: bool = False,
    address: str | None = None,
    listener: StudyListener | None = None,
) -> dict[str, Any]:
    """Run a progressive training, or what is left of it, and return its results.

    Args:
        study: From :func:`plan_progressive`.
        experiment: What is trained.
        profile: The machine of every candidate.
        path: Folder of the study.
        shape: What the common options make of each candidate's experiment, such as its rehearsal.
        resume: Continue what the folder holds.
        begin_again: Begin at ``study.start_ratio`` again, from the best model of the stage before; what the
            folder holds of that stage and later ones is moved aside.
        address: Ray cluster to join.
        listener: Who is told of progress.

    Returns:
        What ``progressive_training_results.json`` holds.

    Raises:
        UserError: The experiment, its data, the folder or the cluster is wrong.
        RunError: Ray does not start.
    """
    from dure.background import refuse_second
    from dure.reporting.progressive_plot import plot_progressive
    from dure.reporting.progressive_table import progressive_text
    from dure.reporting.tracking import tracker_for
    from dure.training.records import RunFolder
    from dure.training.resumption import stored_experiment
    from dure.tuning.adapter import run_study
    from dure.tuning.progression import Progressive

    path = path.resolve()
    refuse_second(path)
    base = shape(experiment)
    if resume:
        stored_experiment(path, base)
        if begin_again and study.start_ratio is not None:
            _move_aside(study, path, study.start_ratio)
        if begin_again or read_progressive(path) != study:
            # What a candidate came to is decided anew; its finished stages stay.
            for name in study.names():
                folder = RunFolder(_candidate_folder(study, path, name))
                folder.result.unlink(missing_ok=True)
                shutil.rmtree(folder.final_model, ignore_errors=True)
    write_text(path / STUDY, dump_yaml(study))
    write_text(path / BASE, dump_yaml(base))
    strategy = Progressive(
        study,
        [shape(each) for each in candidate_experiments(study, experiment)],
        path,
        log_file=str(log_file(path).relative_to(path)),
        forecaster=_forecaster(base),
    )
    try:
        results = run_study(
            strategy, profile=profile, path=path, listener=listener, tracker=tracker_for, address=address
        )
    finally:
        _remove_own_pid(path)
    if results["winner"] is not None:
        results["final_model"] = str(
            _promoted_model(
                _candidate_folder(study, path, results["winner"]), path, results["best_stage"], profile
            )
        )
        write_json(path / RESULTS, results)
    write_text(path / SUMMARY, progressive_text(results))
    if results["stages"]:
        plot_progressive(path / PLOT, results)
    return results


def begins_again(path: Path, start_ratio: str | None) -> bool:
    """Return whether a start ratio asks a folder's training to begin there again, or is only said once more.

    It is said once more when the session that began there was not finished: the same command continues it.

    Args:
        path: Folder of a progressive training.
        start_ratio: What the user gave.
    """
    if start_ratio is None:
        return False
    file = path / RESULTS
    is_finished = file.is_file() and json.loads(file.read_text(encoding="utf-8"))["state"] == "completed"
    return is_finished or read_progressive(path).start_ratio != as_ratio(start_ratio)


def start_in_background(
    study: ProgressiveStudy, experiment: Experiment, path: Path, *, arguments: Sequence[str]
) -> Background:
    """Start a progressive training that outlives the terminal; its folder says from now on what it is.

    Args:
        study: From :func:`plan_progressive`.
        experiment: What is trained, as the common options shape it.
        path: Folder of the study.
        arguments: The command line, from the verb on.

    Raises:
        UserError: One runs in this folder already.
    """
    from dure.background import start

    path = path.resolve()
    if not (path / STUDY).is_file():
        write_text(path / BASE, dump_yaml(experiment))
        write_text(path / STUDY, dump_yaml(study))
    words = [word for word in arguments if word != "--background"]
    if not any(word.split("=")[0] in ("--output", "-o") for word in words):
        words += ["--output", str(path)]
    return start(words, path, pid_file=PID, log=log_file(path))


def candidate_experiments(study: ProgressiveStudy, experiment: Experiment) -> list[Experiment]:
    """Return the experiment of every candidate.

    Raises:
        UserError: A candidate is impossible.
    """
    return [with_values(experiment, values, "--candidates") for values in study.candidates]


def log_file(path: Path) -> Path:
    """Return the log of this session; that of a background process is where its messages go already."""
    folder = path / "logs"
    try:
        mine = os.fstat(sys.__stderr__.fileno()) if sys.__stderr__ is not None else None
    except (OSError, ValueError):
        mine = None
    for file in folder.glob("progressive_training_*.log"):
        if mine is not None and os.path.samestat(mine, file.stat()):
            return file
    return folder / f"progressive_training_{datetime.now():%Y%m%d_%H%M%S}.log"


def read_progressive(path: Path) -> ProgressiveStudy:
    """Return the progressive training of a folder.

    Raises:
        UserError: The folder holds none.
    """
    file = path / STUDY
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict) or values.get("kind") != "progressive":
        raise UserError(
            "this is no folder of a progressive training",
            where=str(path),
            expected=f"a folder with its {STUDY}",
        )
    return checked(ProgressiveStudy, values, {}, str(file))


def _schedule(
    start: str | None, step: str | None, end: str | None, before: Sequence[Fraction]
) -> tuple[Fraction, ...]:
    """Return the ratios; those of an earlier schedule below the start stay."""
    read: dict[str, Fraction] = {}
    last = before[-1] if before else None
    for option, text, default in (
        ("--start-ratio", start, as_number(before[0]) if before else _START),
        ("--step-size", step, as_number(before[1] - before[0]) if len(before) > 1 else _STEP),
        ("--max-ratio", end, _END if last is None else as_number(last)),
    ):
        try:
            read[option] = as_ratio(default if text is None else text)
        except ValueError as error:
            raise UserError(f"'{text}' is none", where=option, expected=str(error)) from None
    first, width, top = read.values()
    try:
        ratios = schedule(first, width, max(top, first) if end is None else top)
    except ValueError as error:
        raise UserError(str(error), where="--start-ratio, --step-size, --max-ratio") from None
    return (*(ratio for ratio in before if ratio < first), *ratios)


def _candidates(experiment: Experiment, given: Iterable[str], num_points: int) -> list[dict[str, Any]]:
    """Return the settings of every candidate: all combinations of what was given."""
    parts: list[list[dict[str, Any]]] = []
    for text in given:
        if "=" in text:
            key, _, listed = (piece.strip() for piece in text.partition("="))
            parts.append([{key: value} for value in _values(experiment, key, listed)])
        else:
            try:
                parts.append(load_space(text).grid(num_points))
            except UserError as error:
                raise UserError(
                    error.problem if error.where is None else f"{error.where}: {error.problem}",
                    where="--candidates",
                    expected=error.expected,
                    hint=error.hint,
                ) from None
    points = [
        {key: value for part in combination for key, value in part.items()} for combination in product(*parts)
    ]
    for place, point in enumerate(points):
        with_values(experiment, point, "--candidates")
        if point in points[:place]:
            told = ", ".join(f"{key}={value}" for key, value in point.items())
            raise UserError(f"{told} stands there twice", where="--candidates")
    return points


def _values(experiment: Experiment, key: str, listed: str) -> list[Any]:
    """Read ``1e-5,3e-5`` as values of a setting, as the experiment itself would take them."""
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        values = []
    if not values:
        raise UserError(
            f"'{listed}' is no list of values", where="--candidates", expected=f"{key}=VALUE,VALUE"
        )
    taken = []
    for value in values:
        tree: Any = with_values(experiment, {key: value}, "--candidates").model_dump(mode="json")
        for part in key.split("."):
            tree = tree[part]
        taken.append(tree)
    return taken


def _forecaster(experiment: Experiment) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any] | None]:
    from dure.analysis.curves import forecast
    from dure.reporting.figures import is_share

    training = experiment.training

    def ahead(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        scored = [record for record in records if record["score"] is not None]
        if not scored or not scored[-1]["num_dev_rows"]:
            return None
        found = forecast(
            [record["num_rows"] for record in scored],
            [record["score"] for record in scored],
            scored[-1]["num_rows_in_all"],
            direction="max" if training.higher_is_better else "min",
            num_dev_rows=scored[-1]["num_dev_rows"],
            is_share=is_share(training.best_metric) and training.best_metric != "eval_rouge_sum",
        )
        return None if found is None else asdict(found)

    return ahead


def _move_aside(study: ProgressiveStudy, path: Path, start: Fraction) -> None:
    """Move stages from a ratio on into a folder of their own, after a look that the one before is finished."""
    from dure.tuning.stages import stage_folders

    names = study.names()
    stamp = f"replaced_{datetime.now():%Y%m%d_%H%M%S}"
    for name in names:
        candidate = _candidate_folder(study, path, name)
        folders = stage_folders(study, candidate)
        place = study.ratios.index(start)
        if place and folders[place - 1].read_training_metrics() is None and len(names) == 1:
            raise UserError(
                f"{folders[place - 1].path.name}, from whose best model it would begin, is not finished",
                where=f"--start-ratio {as_number(start)}",
                hint="leave the option out to continue after the last finished stage",
            )
        later = [stage for stage in candidate.glob("stage_*pct") if int(stage.name.split("_")[1]) > place]
        for old in (*later, candidate / "final_model"):
            if old.is_dir():
                (candidate / stamp).mkdir(exist_ok=True)
                old.rename(candidate / stamp / old.name)


def _candidate_folder(study: ProgressiveStudy, path: Path, name: str) -> Path:
    return path if len(study.candidates) == 1 else path / name


def _promoted_model(candidate: Path, path: Path, stage: str, profile: Profile) -> Path:
    """Move the model of the winner's best stage into its candidate's folder, from where it predicts.

    Made anew from the stage's weights, if it was removed when another stage was the best.
    """
    from dure.training.snapshots import BEST, export_weights

    target, made = candidate / "final_model", candidate / stage / "final_model"
    if candidate != path:
        shutil.copyfile(made.with_name(BASE), candidate / BASE)
    if made.is_dir():
        with written_beside(target) as beside:
            made.rename(beside)
    elif not target.is_dir():
        weights = candidate / stage / "checkpoints" / BEST
        export_weights(weights, load_experiment(str(made.with_name(BASE))), profile, target)
    return target


def _remove_own_pid(path: Path) -> None:
    file = path / PID
    if file.is_file() and file.read_text(encoding="utf-8").strip() == str(os.getpid()):
        file.unlink()
