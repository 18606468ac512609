"""What a folder of weights held when it was written: sizes and hashes, to be compared with what is there now.

The hash is XXH3 with 128 bits. It finds what disks and copies do to files, and is no shield against somebody who
forges them. On this project's reference machine (two cores) it takes 10 GB a second of one core, SHA-256 0.85 and
BLAKE2b 0.55, so that saving is as fast as the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dure.errors import UserError
from dure.files import flush, give_usual_permissions, hash_of, parse_json, write_json

MANIFEST = "manifest.json"
ALGORITHM = "xxh3_128"
_NUM_THREADS = 8
"""Flushes and hashes wait for the disk more than they compute."""
_MOST_NAMED = 3

_Found = TypeVar("_Found")


def write_manifest(folder: Path) -> None:
    """Flush every file of a folder to the disk and write their sizes and hashes beside them, last of all."""
    give_usual_permissions(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    facts = _each(paths, _flushed)
    named = {path.relative_to(folder).as_posix(): each for path, each in zip(paths, facts, strict=True)}
    write_json(folder / MANIFEST, {"algorithm": ALGORITHM, "files": named})
    for part in {folder, *(path.parent for path in paths)}:
        flush(part)


def has_manifest(folder: Path) -> bool:
    """Return whether a folder says what it should hold; those that older versions wrote do not."""
    return (folder / MANIFEST).is_file()


def faults(folder: Path, *, editable: Collection[str] = ()) -> list[str]:
    """Return in words what a folder lacks of what was written, or holds otherwise; nothing without a manifest.

    ``editable`` names files that its user may change.
    """
    if not has_manifest(folder):
        return []
    try:
        content = parse_json((folder / MANIFEST).read_bytes())
        known = {
            str(name): (facts["size"], facts["hash"])
            for name, facts in content["files"].items()
            if name not in editable
        }
        algorithm = content["algorithm"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST} is damaged ({type(error).__name__})"]
    if algorithm != ALGORITHM:
        return [f"{MANIFEST} is by '{algorithm}', not {ALGORITHM}"]
    # Sizes first: they cost nothing, and most of what breaks a file changes its size.
    found = [fault for name, (size, _) in known.items() if (fault := _size_fault(folder / name, name, size))]
    if found:
        return found
    hashes = _each([folder / name for name in known], _hash_or_error)
    return [
        f"{name} cannot be read ({now.strerror})" if isinstance(now, OSError) else f"{name} was changed"
        for (name, (_, before)), now in zip(known.items(), hashes, strict=True)
        if now != before
    ]


def described(found: Sequence[str]) -> str:
    """Return faults in one line, the first few of them."""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return ", ".join(found[:_MOST_NAMED]) + more


def check_whole(folder: Path, *, hint: str) -> None:
    """Check that a folder holds what was written.

    Raises:
        UserError: It does not.
    """
    if found := faults(folder):
        raise UserError(f"it is broken: {described(found)}", where=str(folder), hint=hint)


def _flushed(path: Path) -> dict[str, int | str]:
    flush(path)
    return {"size": path.stat().st_size, "hash": hash_of(path)}


def _hash_or_error(path: Path) -> str | OSError:
    try:
        return hash_of(path)
    except OSError as error:
        return error


def _size_fault(path: Path, name: str, size: int) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    now = path.stat().st_size
    if now == size:
        return None
    how = "is cut short" if now < size else "has grown"
    return f"{name} {how}: {now:,} of {size:,} bytes"


def _each(paths: list[Path], step: Callable[[Path], _Found]) -> list[_Found]:
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return list(threads.map(step, paths))
