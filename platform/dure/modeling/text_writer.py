"""A model of CTranslate2, asked as one of transformers is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, GenerationConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

MODEL = "ctranslate2"
"""Folder of an export that has the converted model."""


class TextWriter:
    """A model of CTranslate2 that is asked to ``generate`` as one of transformers is.

    The folder is an export with ``generation_config.json``. CTranslate2 knows tokens by their texts, which the
    tokenizer has.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        import ctranslate2

        self.config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        kind = ctranslate2.Translator if self.config.is_encoder_decoder else ctranslate2.Generator
        self._model = kind(str(folder / MODEL), device="cpu", intra_threads=torch.get_num_threads())
        self._tokenizer = tokenizer

    def eval(self) -> TextWriter:
        """Return the model, which never trains."""
        return self

    def to(self, device: torch.device) -> TextWriter:
        """Return the model, which stays on the CPU."""
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
            written = [self._tokenizer.convert_tokens_to_ids(each.hypotheses[0]) for each in found]
            return _padded(written, said.pad_token_id)
        found = self._model.generate_batch(
            texts,
            max_length=said.max_new_tokens,
            min_length=said.min_new_tokens or 0,
            end_token=said.eos_token_id,
            include_prompt_in_result=False,
            **options,
        )
        after = _padded([each.sequences_ids[0] for each in found], said.pad_token_id)
        return torch.cat([input_ids, after], dim=1)


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(1, *map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
