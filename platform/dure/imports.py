"""Importing torch, transformers and Ray without waiting for what nobody needs of them.

Measured on Python 3.11 (CPU seconds until what a trial needs is imported, and the process gone again): 8.6 as Python does
it; a third less without collections among the freshly imported modules, where nothing is garbage, and one second less
without bitsandbytes, which peft imports, and with it torch's compiler, though few models are quantised.
"""

from __future__ import annotations

import atexit
import gc
import importlib.metadata
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from dure.errors import UserError

_YOUNG, _OLD = 100_000, 50
"""New containers before the young are collected (Python: 700), and collections before older ones are (10)."""

_usual: list[int] = []
"""Thresholds of the collector before they were raised."""


class _WithoutBitsandbytes(MetaPathFinder):
    """Hides bitsandbytes from peft while that is imported; peft looks for it again when it puts in adapters.

    Of what peft imports there, ``peft.helpers`` alone would use it, for the conditions of quantised weights.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing, or say that bitsandbytes is not there."""
        if fullname == "bitsandbytes":
            spec = getattr(sys.modules.get("peft"), "__spec__", None)
            if getattr(spec, "_initializing", False):
                raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


@cache
def import_fast() -> None:
    """Let the imports that follow in this process be fast; called before anything heavy is imported.

    Garbage is collected less often until :func:`collect_as_usual`, and what lives at the end of the process is not looked
    through.
    """
    _usual[:] = gc.get_threshold()
    gc.set_threshold(_YOUNG, _OLD, _OLD)
    atexit.register(gc.freeze)
    sys.meta_path.insert(0, _WithoutBitsandbytes())


def collect_as_usual() -> None:
    """Collect garbage as often as before :func:`import_fast`; called before a training begins.

    Where tensors hang in circles, rare collections would let memory grow. What was imported until now is never looked
    through again: it is most of what there is, and every full collection would cost a third of a second by it.
    """
    if _usual:
        gc.set_threshold(*_usual)
        _usual.clear()
        gc.freeze()


def require_packages(names: Iterable[str], *, extra: str, where: str) -> None:
    """Check that packages are installed, which an extra of dure brings; ``where`` says what needs them.

    Raises:
        UserError: One is not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} is not installed", where=where, hint=f"pip install 'dure[{extra}]'"
        )


def version_of(package: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
