"""CTranslate2: a fast engine for models that write text, on CPUs and NVIDIA cards, in 8 bits too."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoConfig

from dure.errors import UserError, said
from dure.exports.formats import Format, Trained
from dure.modeling.text_writer import MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BART = {"normalize_before": False, "normalize_embedding": True}
"""What BART is; transformers 5 no longer says it in its configuration, and the converter asks."""

_T5 = ("t5", "mt5")


class CTranslate2Model(Format):
    """``ctranslate2/`` with the model, and the tokenizer beside it."""

    packages: ClassVar[tuple[str, ...]] = ("ctranslate2",)
    tolerance = 0.0

    def differs(self, model: PreTrainedModel) -> str:
        """Return that beams are scored otherwise where tokens are forbidden."""
        said = model.generation_config
        values = {"min_length": said.min_length or 0, "no_repeat_ngram_size": said.no_repeat_ngram_size or 0}
        forbidding = [f"generation.{name}={value}" for name, value in values.items() if value > 1]
        if not forbidding or said.num_beams == 1:
            return ""
        return (
            f"CTranslate2 shares the probability of tokens that {' and '.join(forbidding)} "
            f"forbid{'s' if len(forbidding) == 1 else ''} out among the others, and transformers does not, so that "
            f"{said.num_beams} beams come to other texts; with generation.num_beams=1 they do not"
        )

    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Convert the model, its numbers packed as ``quantization`` says (``int8``, ``int8_float32``, ``float16`` …)."""
        from ctranslate2.converters import TransformersConverter

        class Converter(TransformersConverter):  # type: ignore[misc]  # ctranslate2 has no types
            def load_model(self, model_class: Any, path: str, **options: Any) -> Any:
                loaded = super().load_model(model_class, path, **options)
                for name, value in _BART.items() if loaded.config.model_type == "bart" else ():
                    setattr(loaded.config, name, value)
                if loaded.config.model_type in _T5:
                    # The converter scales the output where embeddings are tied, which transformers 5 says of all of them.
                    loaded.config.tie_word_embeddings = getattr(loaded.config, "scale_decoder_outputs", False)
                return loaded

        # Beside the export, on whose disk there must be room anyway; a folder for temporary files may be small.
        with tempfile.TemporaryDirectory(dir=folder) as plain:
            trained.family.export(trained.model, trained.tokenizer, Path(plain))
            try:
                Converter(plain).convert(str(folder / MODEL), quantization=quantization)
            except (ValueError, NotImplementedError, AttributeError) as error:
                raise UserError(
                    f"CTranslate2 does not convert this {trained.model.config.model_type} model: "
                    f"{said(error, 200)}",
                    where="--format ctranslate2",
                    hint="--format transformers",
                ) from None
            config = AutoConfig.from_pretrained(plain, local_files_only=True)
        config.save_pretrained(folder)
        trained.tokenizer.save_pretrained(folder)
