"""What an experiment, or all trials of a study, will take."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dure.config.loading import load_experiment
from dure.config.schema import Experiment, Profile
from dure.events import Notify
from dure.family import load_family
from dure.preflight.checks import CannotTellError
from dure.preflight.foreseeing import foresee, what_fits
from dure.preflight.settings import foretold
from dure.runs.folder import RunFolder
from dure.studies.kind import Shape
from dure.studies.study import is_study, load_study
from dure.training.memory import free_memory
from dure.training.run import RunRequest, run


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

    Args:
        what: Name or file.
        overrides: ``a.b=value`` texts.
        machine: The machine.
        shape: What options make of an experiment.
        measure: Real steps that are trained first, here; their pace calibrates the time.
        notify: Gets one-line messages.

    Returns:
        ``experiments`` (a forecast each, or why it is ``unknown``), and of a study ``seconds`` and ``disk`` in all.

    Raises:
        UserError: Something that was given is wrong.
    """
    study = load_study(what).with_overrides(overrides) if is_study(what) else None
    found = [load_experiment(what, overrides)] if study is None else study.load()
    parts, seconds, disk = list[dict[str, Any]](), [0.0, 0.0], 0
    longest = 0.0
    for experiment in map(shape, found):
        if measure is not None:
            _measure(experiment, machine, measure, notify)
        part = _part(experiment, machine)
        parts.append(part)
        times = (1.0, 1.0) if study is None else study.num_trainings(experiment)
        if part.get("seconds") is None:
            seconds = []
        elif seconds:
            seconds = [total + one * n for total, one, n in zip(seconds, part["seconds"], times, strict=True)]
            longest = max(longest, part["seconds"][1])
        disk += int(part.get("disk", 0))
    side_by_side = machine.max_concurrent_trials or 1
    whole = [max(each / side_by_side, min(each, longest)) for each in seconds] or None
    name = None if study is None else study.words
    return {"study": name, "experiments": parts, "seconds": whole, "disk": disk, "profile": machine.name}


def _part(experiment: Experiment, machine: Profile) -> dict[str, Any]:
    family = load_family(experiment)
    try:
        foreseen = foresee(family, machine)
    except CannotTellError as error:
        return {"name": experiment.name, "unknown": f"{error.reason}; {error.remedy}"}
    free, where = free_memory(machine)
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
    """Train some steps and validate some rows, so that the machine's pace with this model is known.

    A run on its own remembers its pace; that of a miniature, which forecasts nothing by itself, is kept here.

    Raises:
        UserError: Something of the experiment is wrong.
    """
    notify(f"{experiment.name}: training {steps} steps to measure the pace")
    rows = 2 * (experiment.training.eval_batch_size or experiment.training.batch_size)
    changes: dict[str, Any] = {
        "training.max_steps": steps,
        "training.log_every": 1,
        "training.eval_every": steps,
        "training.evaluate_untrained": False,
        "data.max_dev_rows": min(rows, experiment.data.max_dev_rows or rows),
    }
    measured = experiment.with_(changes)
    with tempfile.TemporaryDirectory() as folder:
        result = run(RunRequest(measured, machine, Path(folder) / "run"))
        if experiment.rehearsal.enabled:
            ahead = foresee(load_family(experiment), machine).forecast
            ahead.remember(RunFolder(Path(folder) / "run"), int(result.metrics["num_dev_rows"]))
