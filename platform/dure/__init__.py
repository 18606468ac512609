"""dure: distributed experiments on Ray Train and Ray Tune for fine-tuning NLP models.

The Python API is the functions of :mod:`dure.api` and :mod:`dure.notebook`, imported when they are first used, since they bring torch.
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
        batch,
        clean,
        compare,
        crossval,
        evaluate,
        forecast,
        list_runs,
        load_config,
        load_profile,
        load_study,
        predict,
        progressive,
        read_results,
        report,
        run,
        score,
        sweep,
        train,
        unified,
        validate,
        verify_report,
        with_options,
    )
    from dure.notebook import create_trainer, load_datasets, load_model_and_tokenizer

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
        by_hand = ("create_trainer", "load_datasets", "load_model_and_tokenizer")
        return getattr(importlib.import_module("dure.notebook" if name in by_hand else "dure.api"), name)
    raise AttributeError(f"module 'dure' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
