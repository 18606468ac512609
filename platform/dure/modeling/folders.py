"""What the folder of a checkpoint must hold before a model is loaded from it, without loading any weights."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME

from dure.errors import UserError
from dure.files import parse_json, read_json
from dure.modeling.hub import is_hub_name

_PATTERNS = ("model*.safetensors", "pytorch_model*.bin")
"""Names of files of weights that transformers reads."""
_POINTER = b"version https://git-lfs"
"""What a file begins with that stands for one that Git LFS did not fetch."""
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header."""
BROKEN_CONFIG = (
    OSError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    StrictDataclassError,
)
"""What reading a config.json raises that is broken, or whose values do not go together: each architecture computes from
them in its own way."""
LOST = "copy it again, or take another checkpoint: what is lost cannot be repaired"


def is_model_folder(checkpoint: str) -> bool:
    """Return whether a checkpoint is a folder with a model, or else the name of one on the hub.

    Raises:
        UserError: It is neither; or the folder holds no config.json, such as one with only an adapter of a model.
    """
    folder, expected = Path(checkpoint), "a folder saved with save_pretrained, or a name on the model hub"
    if not folder.is_dir():
        if is_hub_name(checkpoint):
            return False
        raise UserError(f"there is no folder '{checkpoint}'", where="model.checkpoint", expected=expected)
    if (folder / "config.json").is_file():
        return True
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json", what="adapter").get("base_model_name_or_path")
        raise UserError(
            f"folder '{folder}' holds an adapter of {base or 'another model'}, and no model",
            where="model.checkpoint",
            expected=expected,
            hint="merge it into its model with peft's merge_and_unload, and save that with its tokenizer",
        )
    raise UserError(f"folder '{folder}' holds no config.json", where="model.checkpoint", expected=expected)


def check_weight_files(folder: Path) -> None:
    """Check that every file of weights of a checkpoint is there, and as long as it says.

    Raises:
        UserError: One is missing, cut short, or a pointer of Git LFS.
    """
    files = sorted({file for pattern in _PATTERNS for file in folder.glob(pattern)})
    for index in (folder / SAFE_WEIGHTS_INDEX_NAME, folder / WEIGHTS_INDEX_NAME):
        if not index.is_file():
            continue
        parts = read_json(index, what="index of weights").get("weight_map")
        names = sorted({str(name) for name in parts.values()}) if isinstance(parts, dict) else []
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise UserError(
                f"{index.name} names {len(names)} files, of which {len(missing)} are missing, such as {missing[0]}",
                where=f"model.checkpoint={folder}",
                expected="all of them",
                hint="copy the folder again, whole",
            )
        break
    else:
        whole = [file for file in files if "-of-" not in file.name]
        if not whole:
            raise UserError(
                f"it holds parts of weights and no {SAFE_WEIGHTS_INDEX_NAME}"
                if files
                else "it holds no weights",
                where=f"model.checkpoint={folder}",
                expected="model.safetensors, or its parts with their index",
                hint="copy the folder again, whole",
            )
    for file in files:
        with file.open("rb") as stream:
            if stream.read(len(_POINTER)) == _POINTER:
                raise UserError(
                    "the file is a pointer of Git LFS and holds no weights",
                    where=str(file),
                    hint="git lfs pull fetches them",
                )
        if file.suffix == ".safetensors":
            check_length(file)


def check_length(path: Path) -> None:
    """Compare the length of a safetensors file with the one that its header implies.

    Raises:
        UserError: It is cut short, or its header is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise UserError(
                f"the file is cut short within its header: {size:,} bytes are there",
                where=str(path),
                hint=LOST,
            )
        try:
            header = parse_json(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"the header of the file is damaged ({error})",
                where=str(path),
                expected="a safetensors file",
                hint=LOST,
            ) from None
    whole = _LENGTH_BYTES + length + max(ends, default=0)
    if size < whole:
        raise UserError(
            f"the file is cut short: {size:,} of {whole:,} bytes are there", where=str(path), hint=LOST
        )
