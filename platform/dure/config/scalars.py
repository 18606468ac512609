"""Numbers, truth values and names as people write them in YAML and on a command line."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, Strict

from dure.secrets import without_passwords

NUMBER_PATTERN = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"
"""A number as text: what YAML 1.1 makes of ``1e-5``, and what quotes make of any number."""

MAX_WHOLE = 10**15
"""Largest whole number; a float still holds it exactly, and nothing that is counted here comes near."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What is safe as the name of a folder, of a W&B run and of a cluster job alike."""


_TAKEN = re.compile(
    r"final_model|checkpoints?|checkpoints_final|checkpoint-\d+.*|epoch_\d+.*|stage_\d+.*|fold_\d+|trial_\d+"
    r"|logs|oom_stats|sweet_spot_analysis|lr_sweep_results|stop_requested|manifest|lock"
    r"|.*\.(json|jsonl|yaml|yml|pid|log|pt|pth|part|old|deleted)"
    r"|(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.",
    re.IGNORECASE,
)
"""Names of what lies in the folders of runs and studies, and of devices of Windows, where a folder may be copied to."""


def _number(value: Any) -> Any:
    """Turn text such as ``1e-5`` into a float and leave everything else for pydantic."""
    if isinstance(value, str) and re.fullmatch(NUMBER_PATTERN, value.strip()):
        return float(value)
    return value


def _whole_number(value: Any) -> Any:
    """Turn ``1e3`` and ``1000.0`` into 1000; what has a fraction is left for pydantic to refuse."""
    value = _number(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value) or len(value) > 100:
        raise ValueError(
            "expected at most 100 of the characters a-z, A-Z, 0-9, '_', '.' and '-', the first a letter or digit"
        )
    if _TAKEN.fullmatch(value):
        raise ValueError(
            "expected another name: folders and files of this one are dure's own, or no system has them everywhere"
        )
    return value


def _counted(value: int) -> int:
    if not -MAX_WHOLE <= value <= MAX_WHOLE:
        raise ValueError(f"a number up to {MAX_WHOLE:,}")
    return value


Float = Annotated[float, Strict(), BeforeValidator(_number)]
"""A number, also as text, but no truth value, which Python counts as 0 or 1."""

Int = Annotated[int, Strict(), BeforeValidator(_whole_number), AfterValidator(_counted)]
"""A whole number, also as text and as ``1e3``, but no truth value."""

Bool = Annotated[bool, Strict()]
"""A truth value, but no number and no word such as ``yes``."""

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""

Address = Annotated[Text, PlainSerializer(without_passwords, when_used="json")]
"""A URL; what is written and shown of it has neither passwords nor keys."""

Name = Annotated[
    str, AfterValidator(_name), Field(json_schema_extra={"pattern": NAME_PATTERN, "maxLength": 100})
]
"""A name that is also the name of a folder."""

TrackerName = Literal["wandb", "tensorboard", "mlflow"]
"""What tracks runs, each by the name of its package; see :mod:`dure.reporting.tracker`."""
