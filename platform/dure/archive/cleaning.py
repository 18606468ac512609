"""What may go from the outputs and the cache, and letting it go: nothing that dure did not write or that is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from dure.archive.listing import entries_in, listed
from dure.data.arrow_files import forget, spare_entries
from dure.errors import UserError, counted, shown_path
from dure.files import in_bytes
from dure.reporting.columns import FittedTable, column
from dure.runs.budget import delete, study_of, survey
from dure.runs.lock import held
from dure.runs.manifest import has_manifest
from dure.studies.results import Record

_SHORTEST_PATH = 20


class Removable(Record):
    """Something that may go."""

    path: str
    kind: Literal["checkpoint", "cache"]
    num_bytes: int
    reason: str


class Cleaning(Record):
    """What may go, or what went."""

    removable: tuple[Removable, ...]
    num_bytes: int
    """All of it together."""
    is_removed: bool
    left: tuple[str, ...] = ()
    """What was to go and stayed, each with the reason: somebody works in its folder, or the system refuses."""


def clean(folders: Sequence[Path], cache: Path, *, remove: bool) -> Cleaning:
    """Find what may go, and remove it if that is wanted.

    Checkpoints may go that are not the best, of runs that completed, alone or in a study that completed; nothing of what
    is worked in, was interrupted or failed, and nothing that dure did not write. The final model, all records and the
    epochs of sweet spots stay. Entries of the cache may go that were never used again after they were written, and what
    is above the budget of the cache; what is missing there is made anew.

    Raises:
        UserError: A folder is not there.
    """
    entries = dict.fromkeys(path for folder in folders for path in entries_in(folder))
    found: list[Removable] = []
    left: list[str] = []
    for path in entries:
        # A trial may be finished and its study still need it.
        if {listed(path).state, listed(study_of(path)).state} != {"completed"}:
            continue
        try:
            found += _of_runs(path, remove=remove)
        except (UserError, OSError) as error:
            left.append(f"{shown_path(path)}: {error.problem if isinstance(error, UserError) else error}")
    for entry in spare_entries(cache):
        found.append(
            Removable(path=str(entry.files[0]), kind="cache", num_bytes=entry.num_bytes, reason=entry.reason)
        )
        if remove:
            forget(entry)
    size = sum(each.num_bytes for each in found)
    return Cleaning(removable=tuple(found), num_bytes=size, is_removed=remove, left=tuple(left))


def _of_runs(path: Path, *, remove: bool) -> Iterator[Removable]:
    for kept in survey(path):
        is_spare = kept.run_is_finished and not kept.is_best and not kept.is_needed
        is_own = not kept.path.is_symlink() and has_manifest(kept.path)
        if kept.kind != "checkpoint" or not is_spare or not is_own:
            continue
        if remove:
            with held(path):
                if not delete(kept):
                    continue
        yield Removable(
            path=str(kept.path),
            kind="checkpoint",
            num_bytes=kept.size,
            reason="not the best checkpoint of a finished run; longer training would go on from the best",
        )


def cleaning_table(found: Cleaning) -> FittedTable:
    """Return what may go, or what went, the largest first."""
    rows = sorted(found.removable, key=lambda each: -each.num_bytes)
    columns = [
        column("size", (in_bytes(each.num_bytes) for each in rows)),
        column("path", (shown_path(each.path) for each in rows), is_text=True, shortest=_SHORTEST_PATH),
        column("why", (each.reason for each in rows), is_text=True, shortest=_SHORTEST_PATH),
    ]
    size = in_bytes(found.num_bytes)
    what = f"{counted(len(rows), 'thing')}, {size}"
    title = f"removed: {what}" if found.is_removed else f"may go: {what}"
    notes: Sequence[str] = [f"left alone: {each}" for each in found.left]
    if rows and not found.is_removed:
        notes = ["nothing is removed yet; --yes removes it"]
    return FittedTable(columns, title, notes)
