"""CTranslate2: a fast engine for models that write text, on CPUs and NVIDIA cards, in 8 bits too."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from dure.errors import UserError
from dure.exports.formats import Format, Trained
from dure.family import Family

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_MODEL = "ctranslate2"
_BART = {"normalize_before": False, "normalize_embedding": True}
"""What BART is; transformers 5 no longer says it in its configuration, and the converter asks."""


class CTranslate2Model(Format):
    """``ctranslate2/`` with the model, and the tokenizer beside it."""

    packages: ClassVar[tuple[str, ...]] = ("ctranslate2",)
    extra = "ctranslate2"
    tolerance = 0.0

    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Convert the model, its numbers packed as ``quantization`` says (``int8``, ``int8_float32``, ``float16`` …)."""
        from ctranslate2.converters import TransformersConverter

        class Converter(TransformersConverter):  # type: ignore[misc]  # ctranslate2 has no types
            def load_model(self, model_class: Any, path: str, **options: Any) -> Any:
                loaded = super().load_model(model_class, path, **options)
                for name, value in _BART.items() if loaded.config.model_type == "bart" else ():
                    setattr(loaded.config, name, value)
                return loaded

        with tempfile.TemporaryDirectory() as plain:
            trained.family.export(trained.model, trained.tokenizer, Path(plain))
            try:
                Converter(plain).convert(str(folder / _MODEL), quantization=quantization)
            except (ValueError, NotImplementedError, AttributeError) as error:
                raise UserError(
                    f"CTranslate2 does not convert this {trained.model.config.model_type} model: "
                    f"{' '.join(str(error).split())[:200]}",
                    where="--format ctranslate2",
                    hint="--format transformers",
                ) from None
            config = AutoConfig.from_pretrained(plain, local_files_only=True)
        config.save_pretrained(folder)
        trained.tokenizer.save_pretrained(folder)

    def read(self, family: Family, folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load the model, which searches for texts by itself."""
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return TextWriter(folder, tokenizer), tokenizer


class TextWriter:
    """A model of CTranslate2 that is asked to ``generate`` as one of transformers is.

    Args:
        folder: What :meth:`CTranslate2Model.write` wrote, with ``generation_config.json``.
        tokenizer: Turns ids into the texts of tokens, by which CTranslate2 knows them.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        import ctranslate2

        self.config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        kind = ctranslate2.Translator if self.config.is_encoder_decoder else ctranslate2.Generator
        self._model = kind(str(folder / _MODEL), device="cpu", intra_threads=torch.get_num_threads())
        self._tokenizer = tokenizer

    def eval(self) -> TextWriter:
        """Return the model, which never trains."""
        return self

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return the ids that are written, shape (rows, length); a decoder-only model's prompt stands before them."""
        rows = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        texts = [self._tokenizer.convert_ids_to_tokens(row) for row in rows]
        said = self.generation_config
        options: dict[str, Any] = {
            "beam_size": said.num_beams,
            "length_penalty": said.length_penalty if said.num_beams > 1 else 1.0,
            "no_repeat_ngram_size": said.no_repeat_ngram_size or 0,
        }
        if self.config.is_encoder_decoder:
            # The first token of the decoder counts as written for transformers, and the last one does not here.
            found = self._model.translate_batch(
                texts,
                max_input_length=0,
                max_decoding_length=said.max_length - 1,
                min_decoding_length=max(0, (said.min_length or 0) - 1),
                **options,
            )
            written = [self._ids(each.hypotheses[0]) for each in found]
            return _padded(written, said.pad_token_id)
        longest = input_ids.shape[1]
        found = self._model.generate_batch(
            texts, max_length=max(1, said.max_length - longest), include_prompt_in_result=False, **options
        )
        after = _padded([each.sequences_ids[0] for each in found], said.pad_token_id)
        return torch.cat([input_ids, after], dim=1)

    def _ids(self, tokens: list[str]) -> list[int]:
        ids: list[int] = self._tokenizer.convert_tokens_to_ids(tokens)
        return ids


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(1, *map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
