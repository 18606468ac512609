"""The exported model of a run, with its manifest: written whole, and compared with that before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from dure.errors import DureError, UserError, named, shell_word
from dure.family import Family
from dure.files import written_beside
from dure.modeling.replaced import bars_hidden
from dure.modeling.weights import check_finite, tied_parameters
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
    return load_saved(family, folder)


def load_saved(family: Family, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model whose files were compared with their manifest.

    Raises:
        UserError: The folder lacks something, or it is of another kind of model.
    """
    if folder.is_dir() and not any(path for name in _VOCABULARIES for path in folder.glob(name)):
        raise UserError(
            "it holds no vocabulary, so that its tokenizer would know no word",
            where=str(folder),
            expected="tokenizer.json, or another file of a vocabulary",
            hint="copy the folder again",
        )
    try:
        with bars_hidden():
            model, tokenizer = family.load_exported(folder)
    except DureError:
        raise
    except Exception as error:  # transformers raises almost anything for a folder that is not its own
        raise UserError(
            f"it does not load as a model of {family.experiment.family} ({named(error, 160)})",
            where=str(folder),
            expected="a model that a run of this family left, whole",
            hint=f"dure validate --checkpoint {shell_word(folder.parent)} looks closer",
        ) from error
    _check_weights(model, folder)
    return model, tokenizer


def _check_weights(model: PreTrainedModel, folder: Path) -> None:
    """Check that a model got all of its weights from a folder: what is missing there would be random, and nobody would notice."""
    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            stored.update(weights.keys())
    if stored and (lacking := sorted(model.state_dict().keys() - stored - tied_parameters(model).keys())):
        raise UserError(
            f"it lacks {len(lacking)} weights of its own configuration, the first '{lacking[0]}'",
            where=str(folder),
            hint="copy it again, or name the experiment that trained it",
        )
    check_finite(model.state_dict(), str(folder))
