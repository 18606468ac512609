"""The folder of an export: its record, and what may be replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dure.config.loading import load_record
from dure.errors import UserError
from dure.events import Notify
from dure.exports.formats import format_of
from dure.family import Family, load_family
from dure.family.contract import ExportFormat
from dure.files import parse_json, read_json
from dure.runs.folder import RunFolder
from dure.runs.manifest import MANIFEST, check_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPORT_FILE = "export.json"


class ExportRecord(BaseModel):
    """What an export is; ``export.json`` of its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: ExportFormat
    """What it was made as."""
    quantization: str | None
    """How its numbers are packed; None as they were."""
    source: str
    """Which weights it was made of, in words."""
    run: str
    """Name of the folder of their run."""
    agreement: dict[str, Any]
    """How far it predicts what the original predicts; see ``dure.exports.agreement.Agreement``."""
    accepted: float
    """Part of the rows that had to agree."""
    rows_per_second: float
    """Rows that it predicted a second while it was compared, on the CPU."""
    original_rows_per_second: float
    """The same of the original, on the device of the profile."""
    size_bytes: int
    """Bytes of its files, but for this record, the card and the experiment."""
    dure_version: str
    """What wrote it."""


def is_export(folder: Path) -> bool:
    """Return whether a folder is an export of dure."""
    return (folder / EXPORT_FILE).is_file() and (folder / MANIFEST).is_file()


def read_export(folder: Path, notify: Notify) -> tuple[Family, Any, PreTrainedTokenizerBase, ExportRecord]:
    """Load an export: its family, what predicts, its tokenizer and its record.

    Raises:
        UserError: It is none, or not whole, or packages of its format are missing.
    """
    check_whole(folder, hint="copy it again, or export the run again")
    values = read_json(folder / EXPORT_FILE, what="record of an export")
    try:
        record = ExportRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(
            f"this is no record of an export ('{'.'.join(map(str, first['loc']))}': {first['msg']})",
            where=str(folder / EXPORT_FILE),
            hint="export the run again",
        ) from None
    family = load_family(load_record(RunFolder(folder).experiment), notify)
    made = format_of(record.format)
    made.require(record.format)
    model, tokenizer = made.read(family, folder)
    return family, model, tokenizer, record


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
