"""What a progressive training is, as data, and how the options of the command line say it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dure.config.loading import checked, load_space
from dure.config.ratios import Ratio, as_number, as_ratio, percent_label, schedule
from dure.config.scalars import Float, Int
from dure.config.schema import Experiment
from dure.config.tree import given_value
from dure.errors import UserError
from dure.studies.choices import OnBaseline
from dure.studies.plan import OneExperiment, Point, given

if TYPE_CHECKING:
    from dure.studies.kind import Kind


class ProgressiveStudy(OneExperiment):
    """One experiment trained on more and more of its data, each stage from the best model of the stage before."""

    words: ClassVar[str] = "progressive training"
    continues_by_itself: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, str]] = {"candidates": "--candidates"}
    grows: ClassVar[str] = "candidates"
    decides: ClassVar[Mapping[str, str]] = {
        "training.epochs": "epochs_per_stage (--epochs-per-stage N) says how many",
        "training.max_steps": "epochs_per_stage (--epochs-per-stage N) says how long a stage trains",
        "training.eval_every": "every epoch of a stage is validated",
        "data.train_ratio": "ratios (--ratios LIST) says the part of the rows of every stage",
    }

    kind: Literal["progressive"] = "progressive"
    """Kind of the study; a file must name it."""
    ratios: tuple[Ratio, ...] = Field(default=schedule("0.1", "0.1"), min_length=1)
    """Part of the training rows of every stage, rising; each part lies within the next."""
    start_ratio: Ratio | None = None
    """In a folder with stages of smaller ratios, begin here again, from the best model of the stage before."""
    epochs_per_stage: Int = Field(default=2, ge=1)
    """Passes over the rows of a stage."""
    candidates: tuple[Point, ...] = Field(default=({},), min_length=1)
    """Settings to try side by side, by dotted key; at every ratio only the best part of them goes on."""
    reduction: Int = Field(default=3, ge=1)
    """Of n candidates at a ratio the best n // reduction go on, at least one; 1 keeps all."""
    min_gain: Float | None = Field(default=None, ge=0.0)
    """Stop when the best candidate gains less than this from a ratio to the next."""
    on_baseline: OnBaseline | None = None
    """What happens to a candidate that is no better than the trivial baseline at the first ratio: stop, and in a
    rehearsal, whose few rows need not teach random weights anything, warn."""
    max_batch_size: Int = Field(default=4, ge=1)
    """Most rows of one forward pass, taken on all of the data; accumulation keeps the experiment's effective batch."""
    max_memory_mb: Int | None = Field(default=None, ge=1)
    """Above this, a warning is reported and the next stage takes a smaller batch at a time."""

    @model_validator(mode="after")
    def _ratios_rise(self) -> Self:
        for before, after in pairwise(self.ratios):
            if after <= before:
                how = "stay at" if after == before else f"fall from {before} to"
                raise ValueError(f"ratios {how} {after}, and each stage takes more rows than the one before")
        return self

    @model_validator(mode="after")
    def _starts_at_a_ratio(self) -> Self:
        if self.start_ratio is not None and self.start_ratio not in self.ratios:
            raise ValueError(f"start_ratio {as_number(self.start_ratio)} is none of the ratios")
        return self

    @model_validator(mode="after")
    def _each_candidate_once(self) -> Self:
        if any(each in self.candidates[:place] for place, each in enumerate(self.candidates)):
            raise ValueError("candidates holds one twice")
        return self

    def require_read(self, given: Iterable[str], where: str) -> None:
        """Check that settings are read, those of the candidates too, which would train alike otherwise."""
        super().require_read(given, where)
        for candidate in self.candidates:
            super().require_read(candidate, "--candidates")

    def continued(self, before: Self, where: str) -> Self:
        """Return the training as it goes on in a folder; a start is only for the session that asks for it."""
        before = before.with_values(start_ratio=None)
        return super().continued(before, where).with_values(start_ratio=self.start_ratio)

    def decides_like(self, other: Self) -> bool:
        """Return whether another study of these stages would come to the same."""
        said = {"experiment", "overrides", "description", "start_ratio"}
        return self.model_dump(exclude=said) == other.model_dump(exclude=said)

    def num_trainings(self, experiment: Experiment) -> tuple[float, float]:
        """Return the rows of all stages over those of one whole training, for one candidate and for all."""
        stages = float(sum(self.ratios)) * self.epochs_per_stage / experiment.training.epochs
        return stages, stages * len(self.candidates)

    def in_a_row(self, experiment: Experiment) -> float:
        """Return the stages of a candidate."""
        return self.num_trainings(experiment)[0]

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a progressive training."""
        from dure.studies.progressive.driver import ProgressiveKind

        return ProgressiveKind

    def names(self) -> list[str]:
        """Return the names of the candidates; a lone one has the study's."""
        if len(self.candidates) == 1:
            return [self.name]
        return [f"candidate_{place}" for place in range(1, len(self.candidates) + 1)]

    def folder_of(self, name: str) -> str:
        """Return the folder of a candidate within the study's; a lone one needs none of its own."""
        return "." if len(self.candidates) == 1 else name


def stage_name(number: int, ratio: Fraction) -> str:
    """Return the name of a stage, counted from 1, which is also its folder: ``stage_3_30pct``."""
    return f"stage_{number}_{percent_label(ratio)}pct"


_START, _STEP, _END = "0.1", "0.1", "1"
_POINTS = 5
_MAX_CANDIDATES = 1000


def plan_progressive(
    study: ProgressiveStudy,
    *,
    start_ratio: str | None = None,
    step_size: str | None = None,
    max_ratio: str | None = None,
    ratios: str | None = None,
    candidates: Sequence[str] | None = None,
    num_candidates: int | None = None,
    before: ProgressiveStudy | None = None,
    **settings: Any,
) -> ProgressiveStudy:
    """Return the progressive training that the options describe.

    In a folder that holds stages of smaller ratios already (``before``) those stay before ``start_ratio``, and training
    goes on from the last of them. ``ratios`` stands in place of start, step and end. Candidates are ``key=value,value``
    (several make every combination), or a search space by name or file, of which ``num_candidates`` evenly spaced
    points are taken along every range. ``settings`` are other keys of :class:`ProgressiveStudy`; None leaves them as
    they are.

    Raises:
        UserError: One of them is wrong.
    """
    if num_candidates is not None and num_candidates < 1:
        raise UserError(
            f"{num_candidates} points are none", where="--num-candidates", expected="a number from 1"
        )
    if num_candidates is not None and all("=" in text for text in candidates or ()):
        raise UserError("it needs a search space", where="--num-candidates", hint="--candidates SPACE")
    (experiment,) = study.load()
    tried = _candidates(experiment, candidates, num_candidates or _POINTS) if candidates else None
    stages = (start_ratio, step_size, max_ratio)
    if ratios is not None and any(stages):
        raise UserError(
            "it says all that --start-ratio, --step-size and --max-ratio say",
            where=f"--ratios {ratios}",
            hint="give either",
        )
    earlier = () if before is None else before.ratios
    parts: list[Any] | None = None  # they stay as they are
    if ratios is not None:
        parts = [text.strip() for text in ratios.split(",")]
    elif any(stages) or not earlier:
        parts = [as_number(ratio) for ratio in _schedule(*stages, earlier)]
    options = {
        "ratios": parts,
        "candidates": tried,
        "start_ratio": start_ratio,
        **settings,
    }
    places: dict[tuple[str, ...], str] = {(key,): f"--{key.replace('_', '-')}" for key in options}
    places |= {("reduction",): "--eta", ("max_batch_size",): "--batch-size"}
    return checked(ProgressiveStudy, study.said() | given(options), places, "dure progressive")


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


def _candidates(experiment: Experiment, texts: Iterable[str], num_points: int) -> list[dict[str, Any]]:
    """Return the settings of every candidate: all combinations of what was given."""
    parts: list[list[dict[str, Any]]] = []
    for text in texts:
        if "=" in text:
            key, _, listed = (piece.strip() for piece in text.partition("="))
            parts.append([{key: value} for value in _values(experiment, key, listed)])
        else:
            try:
                parts.append(load_space(text).grid(num_points))
            except ValueError as error:
                raise UserError(str(error), where="--num-candidates") from None
            except UserError as error:
                problem = error.problem if error.where is None else f"{error.where}: {error.problem}"
                raise error.at("--candidates", problem) from None
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
