"""What an experiment, or all trials of a study, will take."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from dure.config.schema import Experiment, Profile
from dure.events import Notify
from dure.family import load_family
from dure.preflight.checks import CannotTellError
from dure.preflight.foreseeing import foresee, what_fits
from dure.preflight.settings import foretold
from dure.runtime.placement import room_for
from dure.runtime.scratch import restored
from dure.studies.batch.plan import BatchStudy
from dure.studies.kind import Kind, Shape
from dure.studies.plan import StudyPlan
from dure.studies.study import is_study, load_study
from dure.training.forecasting import cost_of
from dure.training.memory import free_memory
from dure.training.run import RunRequest, run

_BATCHES = 4
"""Batches that a measured validation has at most: with text two are written at a time, and others wait."""


def forecast_experiments(
    what: str,
    overrides: Sequence[str],
    *,
    machine: Profile,
    shape: Shape,
    measure: int | None,
    notify: Notify,
) -> dict[str, Any]:
    """Forecast an experiment, or every experiment of a study and the study as a whole.

    ``measure`` real steps are trained first, here; their pace calibrates the time.

    Returns:
        ``experiments`` (a forecast each, or why it is ``unknown``), and ``seconds``, ``cost`` and ``disk`` in all,
        None where those of one are unknown.

    Raises:
        UserError: Something that was given is wrong.
    """
    # A lone experiment is forecast as a batch of one.
    has_trials = is_study(what)
    study: StudyPlan = load_study(what) if has_trials else BatchStudy(experiments=(what,))
    study = study.with_overrides(overrides)
    found = study.load()
    study = study.named(found).resolved(found)
    kind = study.kind_of()(study, found, shape)
    parts, seconds, longest = list[dict[str, Any]](), [0.0, 0.0], [0.0, 0.0]
    at_once = _at_once(machine, study, found)
    for experiment in kind.read()[: len(found)]:  # the first of several candidates stands for all
        if measure is not None:
            # A run computes with the threads of this process, and a trial with those that Ray gives it.
            with _threads(machine) if has_trials else nullcontext():
                _measure(experiment, machine, measure, notify)
        part = _part(experiment, machine, at_once)
        parts.append(part)
        if part.get("seconds") is None:
            seconds = []
        elif seconds:
            ends = (part["earliest_seconds"] or part["seconds"][0], part["seconds"][1])
            times, in_a_row = study.num_trainings(experiment), study.in_a_row(experiment)
            seconds = [total + one * n for total, one, n in zip(seconds, ends, times, strict=True)]
            longest = [max(total, one * in_a_row) for total, one in zip(longest, ends, strict=True)]
    whole = _whole(seconds, longest, at_once) if seconds else None
    return {
        "study": study.words if has_trials else None,
        "experiments": parts,
        "seconds": whole,
        "cost": cost_of(whole, machine),
        "disk": _disk(kind),
        "profile": machine.name,
    }


def _disk(kind: Kind[Any, Any]) -> int | None:
    """Return the bytes that a study leaves in all its folders; None where those of one are unknown."""
    try:
        return sum(
            files.num_copies * foretold(load_family(each)).disk
            for files in kind.files(None)
            for each in files.experiments
        )
    except CannotTellError:
        return None


def _whole(seconds: Sequence[float], longest: Sequence[float], at_once: int) -> list[float]:
    """Return the least and the most time of trials side by side: the most where the longest begins when all others end."""
    (least, most), (least_longest, most_longest) = seconds, longest
    return [max(least / at_once, least_longest), most / at_once + most_longest * (1 - 1 / at_once)]


def _at_once(machine: Profile, study: StudyPlan, experiments: Sequence[Experiment]) -> int:
    """Return how many trials run side by side: as many as this machine holds, or as its profile says of another."""
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    room = room_for(machine, [here]) // machine.num_workers or machine.max_concurrent_trials or 1
    most = sum(study.num_trainings(each)[1] / study.in_a_row(each) for each in experiments)
    return min(room, machine.max_concurrent_trials or room, max(1, int(most)))


def _part(experiment: Experiment, machine: Profile, at_once: int) -> dict[str, Any]:
    family = load_family(experiment)
    try:
        foreseen = foresee(family, machine)
    except CannotTellError as error:
        return {"name": experiment.name, "unknown": f"{error.reason}; {error.remedy}"}
    free, where = free_memory(machine)
    if machine.device == "cpu" and at_once > 1:
        free, where = free // at_once, f"{where} for each of {at_once} trials"
    least, most = foreseen.forecast.memory
    verdict = "fits" if most <= free else "may not fit" if least <= free else "does not fit"
    return {
        "name": experiment.name,
        **foreseen.forecast.as_dict(),
        "sentence": foreseen.forecast.sentence,
        "free_mb": round(free / 1024**2),
        "where": where,
        "verdict": verdict,
        "would_fit": [] if verdict == "fits" else what_fits(foreseen, machine, free),
        "disk": foretold(family).disk,
    }


def _measure(experiment: Experiment, machine: Profile, steps: int, notify: Notify) -> None:
    """Train some steps and validate some rows twice, so that it is known how long the parts of a run take here.

    The run remembers that itself. Its first validation takes longer than those after it.
    """
    notify(f"{experiment.name}: training {steps} steps to measure the pace")
    rows = _BATCHES * experiment.training.rows_evaluated
    changes: dict[str, Any] = {
        "training.max_steps": steps,
        "training.log_every": max(1, min(experiment.training.log_every, steps // 4)),
        "training.eval_every": max(1, steps // 2),
        "training.early_stopping_patience": None,
        "data.max_dev_rows": min(rows, experiment.data.max_dev_rows or rows),
    }
    with tempfile.TemporaryDirectory() as folder:
        run(RunRequest(experiment.with_(changes), machine, Path(folder) / "run"))


@contextmanager
def _threads(machine: Profile) -> Iterator[None]:
    """Let this process compute with as many threads as Ray gives a trial of a machine."""
    before = torch.get_num_threads()
    with restored("OMP_NUM_THREADS"):
        cores = os.environ.get("OMP_NUM_THREADS") or max(1, int(machine.cpus_per_worker))
        os.environ["OMP_NUM_THREADS"] = str(cores)
        torch.set_num_threads(int(cores))
        try:
            yield
        finally:
            torch.set_num_threads(before)
