"""The modules of model families: dure's own, and beside them those of the user, neither hiding the other.

dure's own lie in ``trainables``: in the repository beside the engine, in a wheel inside it, so that no folder of that
name lands among a user's packages. Both are reached as ``trainables.<name>``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from dure.config.library import installed
from dure.errors import UserError

FAMILIES = "trainables"
_own_only: ContextVar[bool] = ContextVar("own_only", default=False)


@contextmanager
def trusting(code: bool) -> Iterator[None]:
    """Let families be imported while the body runs: any, or without trust in foreign code dure's own only.

    What a folder says that somebody else handed on, such as a run's, must not choose which code runs here.
    """
    before = _own_only.set(not code)
    try:
        yield
    finally:
        _own_only.reset(before)


def family_module(name: str) -> ModuleType:
    """Import a module of a family by its dotted name; the working folder's modules come after all others.

    Raises:
        UserError: It is not dure's own while only those are trusted; or the working folder holds another module of
            the name of one of dure's own.
        ModuleNotFoundError: There is none.
    """
    own = _own_file(name)
    if own is None and _own_only.get():
        raise UserError(
            f"'{name}' is code that did not come with dure, and the folder that names it may be somebody else's",
            where="family",
            expected=f"one of dure's own: {', '.join(own_families())}",
            hint="--trust-code when you trust whoever wrote both",
        )
    if name.partition(".")[0] == FAMILIES:
        _join(name, own)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return importlib.import_module(name)


def own_families() -> list[str]:
    """Return the dotted names of dure's own families."""
    folder = installed(FAMILIES)
    if folder is None:
        return []
    files = [*folder.glob("[!_]*.py"), *(path.parent for path in folder.glob("*/__init__.py"))]
    return sorted(f"{FAMILIES}.{file.stem}" for file in files if file.name != "samples")


def _own_file(name: str) -> Path | None:
    """Return the file of a module that came with dure, or None for another one."""
    package, _, rest = name.partition(".")
    folder = installed(FAMILIES)
    return None if package != FAMILIES or folder is None else _file(folder, rest)


def _file(folder: Path, rest: str) -> Path | None:
    place = folder.joinpath(*rest.split(".")) if rest else folder
    found = (place.with_suffix(".py") if rest else place / "__init__.py", place / "__init__.py")
    return next((file for file in found if file.is_file()), None)


def _join(name: str, own: Path | None) -> None:
    """Make the package of families hold dure's own, and what the working folder has under that name."""
    there = _file(Path.cwd() / FAMILIES, name.partition(".")[2])
    if own is not None and there is not None and own.read_bytes() != there.read_bytes():
        raise UserError(
            f"the working folder has a '{name}' that is not dure's own",
            where="family",
            expected="names that dure's own families do not have",
            hint=f"rename {there}",
        )
    folder = installed(FAMILIES)
    if FAMILIES not in sys.modules and folder is not None:
        spec = importlib.util.spec_from_file_location(
            FAMILIES, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is not None and spec.loader is not None:
            sys.modules[FAMILIES] = package = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(package)
    if FAMILIES in sys.modules:
        path = sys.modules[FAMILIES].__path__
        for place in filter(None, (folder, Path.cwd() / FAMILIES)):
            if place.is_dir() and str(place) not in path:
                path.append(str(place))
