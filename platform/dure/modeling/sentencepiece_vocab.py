"""Tokenizers of a sentencepiece model whose ids are those of a ``vocab.txt`` beside it, as KoBERT ships them.

Its checkpoints bring Python code that puts the two together; here the same is built as a fast tokenizer, so that
no code of a checkpoint is run. Left to itself, transformers would read ``vocab.txt`` as WordPiece, and most words
would be unknown.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import cached_file

from dure.errors import UserError
from dure.files import read_json

PIECES_FILE = "tokenizer_78b3253a26.model"
"""The sentencepiece model; every checkpoint of this kind has it under this name."""
IDS_FILE = "vocab.txt"
"""One piece a line; the number of the line is its id."""

_CONTROL_TOKENS = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_NUMBER_COMMA_PENALTY = 100.0
"""What makes a piece such as ``0,`` the last choice: numbers and their commas are cut apart."""
_NEVER = -1e4
"""Score of what no text is cut into: control tokens, and lines of vocab.txt that are no pieces."""


def find_sentencepiece_vocab(checkpoint: str, revision: str) -> Path | None:
    """Return the folder with both files of a checkpoint, or None when it has another kind of tokenizer.

    A folder that a fast tokenizer was saved to is of another kind.

    Raises:
        OSError: There is no such repository, or it may not be read.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        found = (folder / PIECES_FILE).is_file() and (folder / IDS_FILE).is_file()
        return folder if found and not (folder / "tokenizer.json").is_file() else None
    options: dict[str, Any] = {
        "revision": revision,
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    pieces = cached_file(checkpoint, PIECES_FILE, **options)
    ids = None if pieces is None else cached_file(checkpoint, IDS_FILE, **options)
    if ids is None:
        return None
    cached_file(checkpoint, "tokenizer_config.json", **options)
    return Path(ids).parent


def load_sentencepiece_vocab(folder: Path) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a folder that :func:`find_sentencepiece_vocab` found.

    White space is single spaces, doubled single quotes become a double one, and combining marks are dropped unless
    ``tokenizer_config.json`` says ``keep_accents``; then the text is cut as sentencepiece cuts it, and every piece
    has its id of ``vocab.txt``. Pieces that the file lacks are never used. Of two cuts that are equally likely,
    sentencepiece may take the other one, since it adds in fewer bits.

    Raises:
        UserError: A file cannot be read, the model is no Unigram model, or ``vocab.txt`` lacks a control token.
    """
    pieces = _read_pieces(folder / PIECES_FILE)
    ids = _read_ids(folder / IDS_FILE)
    settings = _read_settings(folder / "tokenizer_config.json")
    scores = {
        piece.piece: piece.score - (_NUMBER_COMMA_PENALTY if _ends_in_number_comma(piece.piece) else 0.0)
        for piece in pieces.pieces
        if piece.type in (piece.NORMAL, piece.USER_DEFINED)
    }
    control = {role: settings.get(role, token) for role, token in _CONTROL_TOKENS.items()}
    missing = [token for token in control.values() if token not in ids]
    if missing:
        raise UserError(f"it has no line '{missing[0]}'", where=str(folder / IDS_FILE))
    scores |= dict.fromkeys(control.values(), _NEVER)
    vocabulary = [(piece, scores.get(piece, _NEVER)) for piece in ids]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=ids[control["unk_token"]]))
    tokenizer.normalizer = _normalizer(settings, pieces.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    ends = [control["cls_token"], control["sep_token"]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{ends[0]} $A {ends[1]}",
        pair=f"{ends[0]} $A {ends[1]} $B:1 {ends[1]}:1",
        special_tokens=[(token, ids[token]) for token in ends],
    )
    limit = {"model_max_length": settings["model_max_length"]} if "model_max_length" in settings else {}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **control, **limit)


def _read_pieces(path: Path) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(f"it cannot be read ({error})", where=str(path)) from None
    if model.trainer_spec.model_type != model.trainer_spec.UNIGRAM:
        raise UserError("this is no Unigram model", where=str(path))
    return model


def _read_ids(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"it cannot be read ({error})", where=str(path)) from None
    pieces = [line.strip() for line in (lines[:-1] if not lines[-1] else lines)]
    if len({*pieces}) != len(pieces):
        twice = next(piece for piece in pieces if pieces.count(piece) > 1)
        raise UserError(f"the piece '{twice}' stands twice", where=str(path))
    return {piece: place for place, piece in enumerate(pieces)}


def _read_settings(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of its tokenizer; control tokens may be given as objects."""
    if not path.is_file():
        return {}
    settings = read_json(path, what="configuration of a tokenizer")
    return {
        key: value["content"] if isinstance(value, dict) and "content" in value else value
        for key, value in settings.items()
    }


def _normalizer(settings: dict[str, Any], charsmap: bytes) -> normalizers.Normalizer:
    steps = [
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
    ]
    if not settings.get("keep_accents", False):
        # Composed again, which the map below does for short sequences only: Hangul would stay in pieces.
        marks = normalizers.Replace(Regex(_combining_marks()), "")
        steps += [normalizers.NFKD(), marks, normalizers.NFC()]
    if settings.get("do_lower_case", False):
        steps.append(normalizers.Lowercase())
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    return normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])


def _combining_marks() -> str:
    """Return a regular expression for one character whose combining class is not 0, as Unicode has them."""
    ranges: list[tuple[int, int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.combining(chr(code)):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1] = (ranges[-1][0], code)
            else:
                ranges.append((code, code))
    return f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in ranges)}]"


def _ends_in_number_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
