"""What to run and where: typed sections, read from YAML and checked before anything starts.

What is named here is imported when it is first used: whoever only asks for names of files waits for no pydantic.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dure.config.library import available
    from dure.config.loading import dump_yaml, load_experiment, load_profile
    from dure.config.rehearsal import rehearsal_of
    from dure.config.schema import Experiment, Profile

_MODULES = ("library", "schema", "loading", "rehearsal")
__all__ = [
    "Experiment",
    "Profile",
    "available",
    "dump_yaml",
    "load_experiment",
    "load_profile",
    "rehearsal_of",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        modules = (importlib.import_module(f"{__name__}.{each}") for each in _MODULES)
        return next(getattr(each, name) for each in modules if hasattr(each, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
