"""What the records of a run say of its model: the figures of the chosen checkpoint, and whether the loss diverged."""

from __future__ import annotations

from pathlib import Path

from dure.config.schema import Experiment
from dure.errors import RunError
from dure.files import read_json_lines


def recorded_metrics(file: Path, best_step: int | None) -> tuple[dict[str, float], dict[str, float]]:
    """Return the validation metrics of the best step, and those before the first step, by name.

    Args:
        file: Records of the run.
        best_step: Step of the best checkpoint; None without one.
    """
    metrics: dict[str, float] = {}
    untrained: dict[str, float] = {}
    for record in read_json_lines(file):
        values = {key: value for key, value in record.items() if value is not None}
        if record["kind"] == "eval" and record["step"] == best_step and record["step"]:
            # Also a test is recorded at this step, by a session that was killed before its result was.
            metrics |= {key: value for key, value in values.items() if key.startswith("eval_")}
        if record["kind"] == "eval" and record["step"] == 0:
            untrained = {key: value for key, value in values.items() if key.startswith("untrained_")}
    return metrics, untrained


def check_last_loss(file: Path, experiment: Experiment) -> None:
    """Check that the last recorded training loss is a number.

    Raises:
        RunError: It is not, so that the model is worth nothing.
    """
    losses = [each["loss"] for each in read_json_lines(file) if each["kind"] == "train" and "loss" in each]
    if losses and losses[-1] is None:
        raise RunError(
            f"the training loss became NaN or infinite; lower training.learning_rate "
            f"({experiment.training.learning_rate:g}) or set training.precision=fp32"
        )
