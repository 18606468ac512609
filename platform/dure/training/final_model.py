"""The exported model of a run, with its manifest: written whole, and compared with that before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dure.family import Family
from dure.files import written_beside
from dure.training.manifest import check_whole, write_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def write_model(
    family: Family, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Export a trained model, whole or not at all, with the sizes and hashes of its files."""
    with written_beside(folder) as beside:
        family.export(model, tokenizer, beside)
        write_manifest(beside)


def read_model(family: Family, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what :func:`write_model` wrote.

    Raises:
        UserError: A file of it was changed or lost, or it is of another family.
    """
    check_whole(
        folder,
        hint="copy it again; in the folder of its run, remove it and result.json: --resume makes it anew",
    )
    return family.load_exported(folder)
