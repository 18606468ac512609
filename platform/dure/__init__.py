"""dure: distributed experiments on Ray Train and Ray Tune for fine-tuning NLP models.

The Python API is the functions of :mod:`dure.api`, :mod:`dure.running` and :mod:`dure.notebook`, imported when they are
first used, since they bring torch.
"""

from __future__ import annotations

import signal
import sys

if (
    sys.argv[0].rpartition("/")[2] in ("dure", "-m")
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    # Until the program itself answers Ctrl-C there is nothing to say: no traceback out of its imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib
from typing import TYPE_CHECKING, Any

from dure.errors import RunError, UserError

if TYPE_CHECKING:
    from dure.api import (
        clean,
        compare,
        evaluate,
        forecast,
        list_runs,
        load_config,
        predict,
        report,
        score,
        validate,
        verify_report,
    )
    from dure.config.loading import load_profile
    from dure.config.rehearsal import with_options
    from dure.notebook import create_trainer, load_datasets, load_model_and_tokenizer
    from dure.running import batch, crossval, progressive, run, sweep, train, unified
    from dure.studies.study import load_study, read_results

_MODULES = ("config.loading", "config.rehearsal", "studies.study", "running", "api", "notebook")
"""Where the names of the Python API are defined, what brings torch last."""
__all__ = [
    "RunError",
    "UserError",
    "batch",
    "clean",
    "compare",
    "create_trainer",
    "crossval",
    "evaluate",
    "forecast",
    "list_runs",
    "load_config",
    "load_datasets",
    "load_model_and_tokenizer",
    "load_profile",
    "load_study",
    "predict",
    "progressive",
    "read_results",
    "report",
    "run",
    "score",
    "sweep",
    "train",
    "unified",
    "validate",
    "verify_report",
    "with_options",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        modules = (importlib.import_module(f"dure.{each}") for each in _MODULES)
        return next(getattr(each, name) for each in modules if hasattr(each, name))
    raise AttributeError(f"module 'dure' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
