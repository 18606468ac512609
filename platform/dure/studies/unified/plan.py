"""What a unified training is, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dure.config.loading import load_experiment
from dure.config.scalars import Bool, Int
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.studies.plan import OneExperiment

if TYPE_CHECKING:
    from dure.studies.kind import Kind


class UnifiedStudy(OneExperiment):
    """One experiment through a whole pipeline: learning-rate sweep, training, sweet spots of its modules, crossover."""

    words: ClassVar[str] = "unified training"
    fixed: ClassVar[Mapping[str, str]] = {"sweep_points": "sweep_points", "sweep_epochs": "sweep_epochs"}

    kind: Literal["unified"] = "unified"
    """Kind of the study; a file must name it."""
    epochs: Int | None = Field(default=None, ge=1)
    """Passes over the rows; those of the experiment when not given."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Rows of one forward pass, a part of the effective batch; accumulation makes up for the rest."""
    sweep: Bool = True
    """Search the learning rate first; the winner trains."""
    sweep_points: Int = Field(default=5, ge=1)
    """Learning rates that are tried."""
    sweep_epochs: Int = Field(default=1, ge=1)
    """Passes over the rows with each of them."""
    crossover: Bool = True
    """Find sweet spots and cross over after the training."""

    def load(self) -> list[Experiment]:
        """Return the experiment, with the study's epochs and batch."""
        own = [] if self.epochs is None else [f"training.epochs={self.epochs}"]
        experiment = self.aimed(load_experiment(self.experiment, [*own, *self.overrides]))
        if self.batch_size is None:
            return [experiment]
        effective = experiment.training.effective_batch_size
        if effective % self.batch_size:
            raise UserError(
                f"{self.batch_size} rows do not make up steps of {effective}",
                where="--batch-size",
                expected=f"a part of {effective}",
            )
        values = {
            "training.batch_size": self.batch_size,
            "training.gradient_accumulation_steps": effective // self.batch_size,
        }
        return [experiment.with_(values, "--batch-size")]

    def num_trainings(self, experiment: Experiment) -> tuple[float, float]:
        """Return the training and the points of the sweep before it, each of which takes some of its epochs."""
        swept = self.sweep_points * self.sweep_epochs / experiment.training.epochs if self.sweep else 0.0
        return 1.0 + swept, 1.0 + swept

    def in_a_row(self, experiment: Experiment) -> float:
        """Return the training, and a point of the sweep before it."""
        return 1.0 + (self.sweep_epochs / experiment.training.epochs if self.sweep else 0.0)

    @classmethod
    def kind_of(cls) -> type[Kind[Any, Any]]:
        """Return what runs a unified training."""
        from dure.studies.unified.driver import UnifiedKind

        return UnifiedKind
