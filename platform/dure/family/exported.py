"""An export read back: what it is, and the model in it that predicts, whatever its format."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from dure.config.loading import checked
from dure.errors import UserError
from dure.family.contract import ExportFormat, Family
from dure.files import read_json
from dure.runs.manifest import MANIFEST, described, faults

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPORT_FILE = "export.json"
"""What an export is, in its folder."""
CARD = "README.md"
"""Its model card, which its user may edit."""
RUNS_ON: dict[ExportFormat, str] = {"onnx": "onnxruntime", "ctranslate2": "ctranslate2"}
"""Format → package that runs its models, on the CPU; each has an extra of dure that is named as the format is. The models of
other formats run on PyTorch, on any device."""


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


def read_record(folder: Path) -> ExportRecord:
    """Return what an export is.

    Raises:
        UserError: It is none, or its record is broken.
    """
    file = folder / EXPORT_FILE
    return checked(ExportRecord, read_json(file, what="record of an export"), {}, str(file))


def read_exported(family: Family, folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load an export.

    Returns:
        What ``dure.family.predicting.predict_rows`` takes as a model, and the tokenizer.

    Raises:
        UserError: It is none, or not whole, or packages of its format are missing.
    """
    if found := faults(folder, editable=(CARD,)):
        raise UserError(
            f"it is broken: {described(found)}",
            where=str(folder),
            hint="copy it again, or export the run again",
        )
    return read_as(read_record(folder).format, family, folder)


def read_as(format: ExportFormat, family: Family, folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load what was written in a format; see :func:`read_exported`.

    Raises:
        UserError: The package that runs it is not installed, or what it belongs to is not at hand.
    """
    package = RUNS_ON.get(format)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(
            f"it is an export as {format}, and {package} is not installed",
            where=str(folder),
            hint=f"pip install 'dure[{format}]'",
        )
    from transformers import AutoTokenizer

    from dure.family.saved_model import load_saved

    if format == "transformers":
        return load_saved(family, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model: Any
    if format == "adapter":
        from dure.modeling.adapted import adapted_model

        model = adapted_model(family.experiment.model, folder)
    elif format == "ctranslate2":
        from dure.modeling.text_writer import TextWriter

        model = TextWriter(folder, tokenizer)
    else:
        from dure.modeling.onnx_model import OnnxEncoderDecoder, OnnxModel

        model = (OnnxEncoderDecoder if family.predicts == "text" else OnnxModel)(folder)
    family.know(model)
    return model, tokenizer
