"""The exported model of a run, with its manifest: written whole, and compared with that before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dure.errors import DureError, UserError
from dure.family import Family
from dure.files import written_beside
from dure.runs.manifest import check_whole, write_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.spm", "*.tiktoken")
"""Files of which a saved tokenizer has at least one; without any, transformers makes an empty one and goes on."""


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
        UserError: The folder lacks something, a file of it was changed, or it is of another kind of model.
    """
    check_whole(
        folder,
        hint="copy it again; in the folder of its run, remove it and result.json: --resume makes it anew",
    )
    if folder.is_dir() and not any(path for name in _VOCABULARIES for path in folder.glob(name)):
        raise UserError(
            "it holds no vocabulary, so that its tokenizer would know no word",
            where=str(folder),
            expected="tokenizer.json, or another file of a vocabulary",
            hint="copy the folder again",
        )
    try:
        return family.load_exported(folder)
    except DureError:
        raise
    except Exception as error:  # transformers raises almost anything for a folder that is not its own
        raise UserError(
            f"it does not load as a model of {family.experiment.family} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:160]})",
            where=str(folder),
            expected="a model that a run of this family left, whole",
            hint=f"dure validate --checkpoint {folder.parent} looks closer",
        ) from error
