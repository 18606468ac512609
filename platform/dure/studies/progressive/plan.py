"""What a progressive training is, as data, and how the options of the command line say it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from dure.config.loading import checked, load_space
from dure.config.ratios import Ratio, as_number, as_ratio, percent_label, schedule
from dure.config.scalars import Float, Int, Name
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.config.tree import given_value
from dure.errors import UserError
from dure.studies.study import stored_study

OnBaseline = Literal["stop", "warn"]


class ProgressiveStudy(Section):
    """One experiment trained on more and more of its data, each stage from the best model of the stage before."""

    kind: Literal["progressive"] = "progressive"
    """Strategy of the study."""
    name: Name
    """Name of the study; also the name of its folder and of its W&B group."""
    ratios: tuple[Ratio, ...] = Field(default=schedule("0.1", "0.1"), min_length=1)
    """Part of the training rows of every stage, rising; each part lies within the next."""
    start_ratio: Ratio | None = None
    """Ratio at which training was told to begin, or to begin again."""
    epochs_per_stage: Int = Field(default=2, ge=1)
    """Passes over the rows of a stage."""
    candidates: tuple[dict[str, Any], ...] = Field(default=({},), min_length=1)
    """Settings to try side by side, by dotted key; at every ratio only the best part of them goes on."""
    reduction: Int = Field(default=3, ge=1)
    """Of n candidates at a ratio the best n // reduction go on, at least one; 1 keeps all."""
    min_gain: Float | None = Field(default=None, ge=0.0)
    """Stop when the best candidate gains less than this from a ratio to the next."""
    on_baseline: OnBaseline = "stop"
    """What happens to a candidate that is no better than the trivial baseline at the first ratio."""
    max_batch_size: Int = Field(default=4, ge=1)
    """Most rows of one forward pass, taken on all of the data; accumulation keeps the experiment's effective batch."""
    max_memory_mb: Int | None = Field(default=None, ge=1)
    """Above this, a warning is told and the next stage takes a smaller batch at a time."""

    @model_validator(mode="after")
    def _ratios_rise(self) -> Self:
        for before, after in pairwise(self.ratios):
            if after <= before:
                raise ValueError(f"ratios fall from {before} to {after}")
        return self

    @model_validator(mode="after")
    def _each_candidate_once(self) -> Self:
        if any(each in self.candidates[:place] for place, each in enumerate(self.candidates)):
            raise ValueError("candidates holds one twice")
        return self

    def names(self) -> list[str]:
        """Return the names of the candidates; a lone one bears the study's."""
        if len(self.candidates) == 1:
            return [self.name]
        return [f"candidate_{place}" for place in range(1, len(self.candidates) + 1)]


def stage_name(number: int, ratio: Fraction) -> str:
    """Return the name of a stage, counted from 1, which is also its folder: ``stage_3_30pct``."""
    return f"stage_{number}_{percent_label(ratio)}pct"


_START, _STEP, _END = "0.1", "0.1", "1"
_POINTS = 5
_MAX_CANDIDATES = 1000


def plan_progressive(
    experiment: Experiment,
    *,
    start_ratio: str | None = None,
    step_size: str | None = None,
    max_ratio: str | None = None,
    ratios: str | None = None,
    epochs_per_stage: int | None = None,
    batch_size: int | None = None,
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
        ratios: Parts of the data of all stages, with commas, in place of these three.
        epochs_per_stage: Passes over the rows of a stage.
        batch_size: Most rows of one forward pass.
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
    if ratios is not None:
        if any((start_ratio, step_size, max_ratio)):
            raise UserError(
                "it says all that --start-ratio, --step-size and --max-ratio say",
                where=f"--ratios {ratios}",
                hint="give either",
            )
        values["ratios"] = [text.strip() for text in ratios.split(",")]
    elif before is None or any((start_ratio, step_size, max_ratio)):
        steps = _schedule(start_ratio, step_size, max_ratio, () if before is None else before.ratios)
        values["ratios"] = [as_number(ratio) for ratio in steps]
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
        "max_batch_size": batch_size,
        "max_memory_mb": max_memory_mb,
        "reduction": reduction,
        "min_gain": min_gain,
        "on_baseline": on_baseline,
        "start_ratio": start_ratio,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    options: dict[tuple[str, ...], str] = {
        (key,): f"--{key.replace('_', '-')}" for key in (*given, "candidates", "ratios")
    }
    options |= {("reduction",): "--eta", ("max_batch_size",): "--batch-size"}
    return checked(ProgressiveStudy, values, options, "dure progressive")


def read_progressive(path: Path) -> ProgressiveStudy:
    """Return the progressive training of a folder.

    Raises:
        UserError: The folder holds none.
    """
    return stored_study(path, ProgressiveStudy, "progressive training")


def candidate_experiments(study: ProgressiveStudy, experiment: Experiment) -> list[Experiment]:
    """Return the experiment of every candidate.

    Raises:
        UserError: A candidate is impossible.
    """
    return [experiment.with_(values, "--candidates") for values in study.candidates]


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
            except ValueError as error:
                raise UserError(str(error), where="--num-candidates") from None
            except UserError as error:
                raise UserError(
                    error.problem if error.where is None else f"{error.where}: {error.problem}",
                    where="--candidates",
                    expected=error.expected,
                    hint=error.hint,
                ) from None
    count = math.prod(map(len, parts))
    if count > _MAX_CANDIDATES:
        raise UserError(
            f"{count:,} candidates", where="--candidates", expected=f"at most {_MAX_CANDIDATES:,}"
        )
    points = [
        {key: value for part in combination for key, value in part.items()} for combination in product(*parts)
    ]
    for place, point in enumerate(points):
        experiment.with_(point, "--candidates")
        if point in points[:place]:
            told = ", ".join(f"{key}={value}" for key, value in point.items())
            raise UserError(f"{told} stands there twice", where="--candidates")
    return points


def _values(experiment: Experiment, key: str, listed: str) -> list[Any]:
    """Read ``1e-5,3e-5`` as values of a setting, as the experiment itself would take them."""
    try:
        values = given_value(f"[{listed}]")
    except ValueError as error:
        raise UserError(f"'{listed}': {error}", where="--candidates", expected=f"{key}=VALUE,VALUE") from None
    if not values:
        raise UserError(
            f"'{listed}' is no list of values", where="--candidates", expected=f"{key}=VALUE,VALUE"
        )
    taken = []
    for value in values:
        tree: Any = experiment.with_({key: value}, "--candidates").model_dump(mode="json")
        for part in key.split("."):
            tree = tree[part]
        taken.append(tree)
    return taken
