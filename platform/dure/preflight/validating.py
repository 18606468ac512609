"""All checks in their order: environment, configuration, rows, checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dure.config import library
from dure.config.families import trusting
from dure.config.loading import load_experiment, load_profile, load_record
from dure.config.rehearsal import rehearsal_of
from dure.config.schema import Experiment, Profile
from dure.errors import UserError, said
from dure.events import Notify
from dure.family import Family, load_family
from dure.outputs import outputs
from dure.preflight import environment
from dure.preflight.checks import Check, Checklist, Note
from dure.preflight.forecast import check_disk, check_memory
from dure.preflight.model import ModelFacts, model_facts
from dure.preflight.settings import batch, best_metric, foretold, targets, tracking
from dure.runs.folder import RunFolder

Readers = Mapping[library.Kind, Callable[[str], object]]
"""How a YAML file of each kind is read, by its name or path."""

_FOLDERS_ABOVE = 3
"""A weights file may lie in a checkpoint's folder, and that in the folder of a run."""


def validate(
    experiment: str | None = None,
    overrides: Sequence[str] = (),
    *,
    profile: str | None = None,
    checkpoint: Path | None = None,
    output: Path | None = None,
    rehearse: bool = False,
    trust_code: bool = False,
    readers: Readers,
    notify: Notify,
) -> list[Check]:
    """Make the checks of :func:`dure.api.validate`, and return what became of each, area by area.

    The experiment is that of the run which ``checkpoint`` lies in when none is given. Without either, all experiments,
    studies, spaces and profiles that have a name are read, by ``readers``, and there are no rows to check. Nothing is
    downloaded, and mistakes in what was given are failed checks, and raise nothing.
    """
    checklist = Checklist()
    notify("environment: packages and device")
    environment.check_installation(checklist)
    with _quiet("transformers" not in checklist.missing):
        source: str | Path | None = experiment
        if source is None and checkpoint is not None:
            source = _experiment_around(checkpoint)
        if source is None:
            checklist.run("config", "library", _library, readers=readers)
        with trusting(trust_code or experiment is not None):
            chosen: Experiment | None = None
            family: Family | None = None
            facts: ModelFacts | None = None
            if source is not None:
                chosen = checklist.run(
                    "config", "experiment", _experiment, name=source, overrides=overrides, rehearse=rehearse
                )
            machine = checklist.run("config", "profile", _profile, name=profile)
            folder = output or outputs()
            environment.check_machine(checklist, machine, chosen, folder)
            if chosen is not None:
                family = checklist.run("config", "family", _family, experiment=chosen)
            if family is not None:
                facts = _check_experiment(checklist, family, machine, folder, notify)
            if checkpoint is not None and {"torch", "safetensors", "transformers"} & set(checklist.missing):
                checklist.skip("checkpoints", "it needs packages that cannot be imported", checkpoint.name)
            elif checkpoint is not None:
                notify(f"checkpoints: {checkpoint}")
                from dure.preflight.checkpoints import Wanted, check_checkpoints

                check_checkpoints(checklist, checkpoint, Wanted(family, facts))
    return checklist.in_order()


def as_record(checks: Sequence[Check]) -> dict[str, Any]:
    """Return checks as one JSON-ready object, with how many are of each state."""
    states = [check.state for check in checks]
    return {
        "state": "failed" if "failed" in states else "ok",
        **{f"num_{state}": states.count(state) for state in ("ok", "failed", "skipped")},
        "checks": [asdict(check) for check in checks],
    }


@contextmanager
def _quiet(has_transformers: bool) -> Iterator[None]:
    """Keep libraries from warning while models are loaded only to be looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not has_transformers:
            yield
            return
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)


def _experiment_around(checkpoint: Path) -> Path | None:
    """Return the file of the experiment in whose run's folder a checkpoint lies."""
    above = (checkpoint.absolute(), *checkpoint.absolute().parents)[:_FOLDERS_ABOVE]
    files = (RunFolder(folder).experiment for folder in above)
    return next((file for file in files if file.is_file()), None)


def _library(note: Note, readers: Readers) -> None:
    """Read everything that has a name."""
    counts, problems = [], []
    for kind, read in readers.items():
        found = library.available(kind)
        counts.append(f"{kind}: {len(found)}")
        for file in found.values():
            try:
                read(str(file))
            except UserError as error:
                problems.append(said(error))
    if problems:
        raise UserError("; ".join(problems), hint="correct the file that is named")
    note.found = f"all that has a name can be read ({', '.join(counts)})"


def _experiment(note: Note, name: str | Path, overrides: Sequence[str], rehearse: bool) -> Experiment:
    if isinstance(name, Path):
        load_record(name)  # of a folder that somebody may have handed on: it must not lead to other files
        name, overrides = str(name), ("mlflow.uri=null", *overrides)  # whose password a record lacks
    loaded = load_experiment(name, overrides)
    note.found = f"{loaded.name} ({name})"
    return rehearsal_of(loaded) if rehearse else loaded


def _profile(note: Note, name: str | None) -> Profile:
    from dure.runtime.placement import recognised_profile

    if name is not None:
        chosen = load_profile(name)
        note.found = f"{chosen.name}: {chosen.description}"
        return chosen
    recognised, note.found = recognised_profile()
    return recognised


def _family(note: Note, experiment: Experiment) -> Family:
    family = load_family(experiment)
    note.found = f"{experiment.family}, options as it takes them"
    return family


def _check_experiment(
    checklist: Checklist, family: Family, profile: Profile | None, output: Path, notify: Notify
) -> ModelFacts | None:
    """Check what an experiment says beyond its sections, its rows, its model, and what that will take."""
    from dure.preflight.rows import check_rows

    experiment = family.experiment
    checklist.run("config", "best metric", best_metric, family=family)
    if experiment.targets:
        checklist.run("config", "targets to reach", targets, family=family)
    if experiment.trackers:
        checklist.run("config", "tracking", tracking, experiment=experiment)
    if profile is not None:
        checklist.run("config", "batch", batch, experiment=experiment, profile=profile)
    notify("data: tables, and how they are encoded")
    tokenizer = check_rows(checklist, family)
    facts = checklist.run("config", "model", model_facts, family=family, tokenizer=tokenizer)
    if facts is None or profile is None:
        reason = "the model's size is not known" if facts is None else "the profile is not known"
        checklist.skip("environment", reason, "memory", "disk")
        return facts
    checklist.run("environment", "memory", check_memory, family=family, profile=profile)
    ahead = foretold(family, facts)
    checklist.run("environment", "disk", check_disk, foretold=ahead, folder=output)
    return facts
