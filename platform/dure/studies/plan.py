"""What a study of any kind says in its YAML; each kind adds its own keys in its ``plan.py``."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from dure.config.loading import checked, load_experiment
from dure.config.scalars import Float, Name, Text
from dure.config.schema import Experiment
from dure.config.section import Section
from dure.config.tree import flat
from dure.errors import UserError
from dure.secrets import without_passwords

if TYPE_CHECKING:
    from dure.studies.kind import Kind

_LONGEST_STEM = 80


def _as_texts(value: Any) -> Any:
    """Turn ``{training: {epochs: 3}}`` into ``training.epochs=3``; a list is left as it is."""
    if not isinstance(value, Mapping):
        return value
    return [f"{key}={json.dumps(inner, ensure_ascii=False)}" for key, inner in flat(value).items()]


def _as_recorded(overrides: Sequence[str]) -> list[str]:
    """Return settings as records have them: an address, which is one of ``mlflow.``, without its password."""
    return [without_passwords(each) if each.startswith("mlflow") else each for each in overrides]


Overrides = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_texts, json_schema_input_type=list[str] | dict[str, Any]),
    PlainSerializer(_as_recorded, when_used="json"),
]
"""Settings laid over experiments: ``[training.epochs=3]``, or keys and values."""


def _by_dotted_key(value: Any) -> Any:
    """Turn ``{training: {learning_rate: 1e-4}}`` into ``{training.learning_rate: 1e-4}``."""
    return flat(value) if isinstance(value, Mapping) else value


Point = Annotated[dict[str, Any], BeforeValidator(_by_dotted_key, json_schema_input_type=dict[str, Any])]
"""Settings by dotted key, or as sections within sections."""


class StudyPlan(Section, ABC):
    """Base of the kinds of study: what to run, without where and with which common options.

    :mod:`dure.studies.life_cycle` calls :meth:`continued` when a folder is continued, :meth:`resolved` once the
    experiments are loaded, and :meth:`kind_of` to run it.
    """

    words: ClassVar[str]
    """The kind in words, such as ``sweep``."""
    continues_by_itself: ClassVar[bool] = False
    """Whether the same command with the same ``--output`` continues, without ``--resume``."""
    fixed: ClassVar[Mapping[str, str]] = {}
    """Keys that cannot change while a study goes on, and the option of the kind's verb that says each."""
    grows: ClassVar[str] = ""
    """One of them to whose end more may be added; not to a lone one, which has no folder of its own."""

    decides: ClassVar[Mapping[str, str]] = {}
    """Settings of its experiments that the study replaces, and what says them in their place."""

    kind: str
    """Kind of the study; a file must name it."""
    name: Name = Field(default_factory=str, exclude_if=lambda name: not name)
    """Name of the study; also that of its folder and of its W&B group. Made of its experiment's when not given."""
    description: str = ""
    """One sentence on what the study finds out."""
    overrides: Overrides = ()
    """Settings laid over every experiment: a list of a.b=value, or keys and values."""
    targets: dict[str, Float] = Field(default_factory=dict)
    """What is to be reached, by metric: ``{eval_macro_f1: 0.94}``; laid over the targets of its experiments, and told
    of the study's winner or of its mean."""

    @property
    @abstractmethod
    def sources(self) -> Sequence[str]:
        """The experiments, by name or file."""

    def load(self) -> list[Experiment]:
        """Return the experiments, with the overrides and the targets.

        Raises:
            UserError: There is none of a name, or something in one is wrong.
        """
        return [self.aimed(load_experiment(each, self.overrides)) for each in self.sources]

    def aimed(self, experiment: Experiment) -> Experiment:
        """Return an experiment with the targets of the study laid over its own."""
        if not self.targets:
            return experiment
        return experiment.with_({"targets": {**experiment.targets, **self.targets}}, "targets")

    def with_values(self, **values: Any) -> Self:
        """Return the study with other values, checked as those of a file are.

        Raises:
            UserError: It is impossible with these values.
        """
        return checked(type(self), self.said() | values, {}, f"the {self.words}")

    def said(self) -> dict[str, Any]:
        """Return the keys that the study says itself, without defaults."""
        return {key: getattr(self, key) for key in self.model_fields_set}

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """Return the study with further settings for its experiments, which win over its own."""
        return self.with_values(overrides=(*self.overrides, *overrides)) if overrides else self

    def require_read(self, given: Iterable[str], where: str) -> None:
        """Check that settings are read, by dotted key; ``where`` is what gave them.

        Raises:
            UserError: The study replaces one of them.
        """
        for key in given:
            if key in self.decides:
                raise UserError(
                    f"'{key}' is not read by a {self.words}, which replaces it",
                    where=where,
                    hint=f"leave it out; {self.decides[key]}",
                )

    def named(self, experiments: Sequence[Experiment]) -> Self:
        """Return the study with a name, its own or one made of its experiments: ``bert-sweep``, ``a-and-2-more-crossval``."""
        if self.name:
            return self
        stems = [re.sub(r"[^A-Za-z0-9_.-]+", "-", each.name).lstrip("-_.") or "study" for each in experiments]
        shown = stems[0] if len(stems) == 1 else f"{stems[0][:50]}-and-{len(stems) - 1}-more"
        return self.with_values(name=f"{shown[:_LONGEST_STEM]}-{self.kind}")

    def continued(self, before: Self, where: str) -> Self:
        """Return this study as it goes on in a folder: what it does not say stays as it was there.

        Raises:
            UserError: It changes what cannot change.
        """
        for key, option in self.fixed.items():
            if key in self.model_fields_set and not self.is_same(key, before):
                raise UserError(
                    f"'{key}' cannot change while a {self.words} goes on",
                    where=option,
                    hint=f"leave it out, or see {where}",
                )
        values = {key: getattr(self, key) for key in self.model_fields_set - self.fixed.keys() - {"name"}}
        if self.grows:
            values[self.grows] = max(getattr(self, self.grows), getattr(before, self.grows), key=len)
        return before.with_values(**values)

    def is_same(self, key: str, before: Self) -> bool:
        """Return whether a key that cannot change says what it said before."""
        now, then = getattr(self, key), getattr(before, key)
        return bool((now[: len(then)] if key == self.grows and len(then) > 1 else now) == then)

    def resolved(self, experiments: Sequence[Experiment]) -> Self:
        """Return the study with what it leaves to its experiments filled in.

        Raises:
            UserError: The experiments do not fit it, or each other.
        """
        return self

    def num_trainings(self, experiment: Experiment) -> tuple[float, float]:
        """Return how often the whole training of an experiment is computed, at the least and at the most."""
        return 1.0, 1.0

    def in_a_row(self, experiment: Experiment) -> float:
        """Return how many of these must follow one another, however many trials run side by side."""
        return 1.0

    @classmethod
    @abstractmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs studies of this kind; imported only now, since plans need no heavy libraries."""


class OneExperiment(StudyPlan):
    """Base of the studies of one experiment."""

    experiment: Text
    """What is trained, by name or file."""

    @property
    def sources(self) -> Sequence[str]:
        """The experiment, by name or file."""
        return (self.experiment,)


class SeveralExperiments(StudyPlan):
    """Base of the studies that compare experiments."""

    experiments: tuple[Text, ...] = Field(min_length=1)
    """Experiments by name or file, in the order of the table; in a cross-validation the others are compared with the
    first."""

    @field_validator("experiments")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each experiment once, since each has one folder")
        return value

    @property
    def sources(self) -> Sequence[str]:
        """The experiments, by name or file."""
        return self.experiments

    def resolved(self, experiments: Sequence[Experiment]) -> Self:
        """Return the study, after a look at the names of its experiments.

        Raises:
            UserError: Two of them have one name.
        """
        names = [each.name for each in experiments]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"two experiments are named '{name}'",
                    where=f"study {self.name}",
                    expected="distinct experiment.name, since each has a folder of its own",
                )
        return super().resolved(experiments)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command that were given: neither None nor empty, nor a flag that was left out."""
    return {
        key: value
        for key, value in options.items()
        if value is not None and value is not False and value not in ((), [])
    }
