"""The folder of an export, and what of it may be replaced."""

from __future__ import annotations

from pathlib import Path

from dure.errors import UserError
from dure.family.exported import is_export
from dure.files import parse_json
from dure.runs.manifest import MANIFEST


def check_target(folder: Path, *, force: bool) -> None:
    """Check that an export may be written to a folder: nothing that dure did not write is replaced.

    Raises:
        UserError: There is something else, or an export and it was not said to be replaced.
    """
    where = f"--to {folder}"
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not is_export(folder):
        raise UserError(
            "there is something that dure did not export",
            where=where,
            expected="a new or empty folder, or an earlier export",
        )
    known = set(parse_json((folder / MANIFEST).read_bytes())["files"]) | {MANIFEST}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if foreign := sorted(files - known):
        raise UserError(
            f"beside an export there is '{foreign[0]}', which dure did not write",
            where=where,
            hint="another folder",
        )
    if not force:
        raise UserError("there is an export", where=where, hint="--force replaces it")
