"""Final models as they are loaded again: whole, or told what is wrong with their folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dure.errors import DureError, UserError
from dure.family import Family

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.spm", "*.tiktoken")
"""Files of which a saved tokenizer has at least one; without any, transformers makes an empty one and goes on."""


def load_exported(family: Family, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the final model of a run as its family does.

    Raises:
        UserError: The folder lacks something, is damaged, or is of another kind of model.
    """
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
