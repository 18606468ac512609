"""DeepSpeed settings of a machine profile: a JSON file that says how a model is shared out, and nothing else."""

from __future__ import annotations

from typing import Any

from dure.config import library
from dure.errors import UserError, shown_path
from dure.files import parse_json

_OF_THE_EXPERIMENT = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16.enabled",
    "fp16.enabled",
    "torch_autocast.enabled",
    "torch_autocast.dtype",
)
"""What DeepSpeed must be reported and an experiment says; ``auto`` is filled in before training."""


def deepspeed_settings(name: str) -> dict[str, Any]:
    """Return the settings of a name or a ``.json`` file, with ``auto`` for everything that an experiment says.

    Raises:
        UserError: There is no such file, it is no JSON object with ``zero_optimization``, or it says what
            experiments say.
    """
    path = library.find("deepspeed", name)
    where = shown_path(path)
    try:
        settings = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})", where=where) from None
    except ValueError as error:
        raise UserError(f"this is no JSON: {error}", where=where) from None
    zero = settings.get("zero_optimization") if isinstance(settings, dict) else None
    if not isinstance(zero, dict) or zero.get("stage") not in (0, 1, 2, 3):
        raise UserError(
            "there is no ZeRO stage",
            where=where,
            expected='an object such as {"zero_optimization": {"stage": 2}}',
        )
    for key in ("optimizer", "scheduler"):
        if key in settings:
            raise UserError(
                f"'{key}' is set here, but it comes from the experiment", where=where, hint="leave it out"
            )
    for key in _OF_THE_EXPERIMENT:
        section, last = settings, key
        if "." in key:
            outer, last = key.split(".")
            section = settings.setdefault(outer, {})
            if not isinstance(section, dict):
                raise UserError(f"'{outer}' is {section!r}", where=where, expected="an object")
        if section.setdefault(last, "auto") != "auto":
            raise UserError(
                f"'{key}' is {section[last]!r}, but it comes from the experiment",
                where=where,
                expected='"auto"',
            )
    made: dict[str, Any] = settings
    return made
