"""Summarisation with encoder-decoder models: mT5, T5 and BART, fully, with LoRA or with QLoRA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dure.data.dialogues import lead
from dure.data.encoding import token_ids
from dure.data.tables import Role
from dure.family import Features, Rows
from trainables._summaries import WritesTexts, dialogue_rows

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dure.data.collating import TextPairs
    from dure.modeling.objectives import TokenCrossEntropy
    from dure.modeling.task import Task


class Summarization(WritesTexts):
    """Reads a text (a dialogue, with speakers as special tokens) and writes its summary."""

    roles = (
        Role("id", "fname", required=False, is_id=True),
        Role("text", "dialogue", is_input=True),
        Role("target", "summary"),
    )
    converts = ()
    exports = ("transformers", "adapter", "onnx", "ctranslate2")
    answer = "summary"

    def sample(self, split: str) -> list[dict[str, str]]:
        """Return the embedded Korean dialogues with their summaries."""
        return dialogue_rows(split)

    def task(self) -> Task:
        """Return what a summariser does: it reads a text and writes another."""
        from dure.modeling.task import SEQ2SEQ

        return SEQ2SEQ

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode inputs with their prefix and, when the rows have them, targets; keep the target's text.

        The lead is kept as well: many tokenizers forget where lines end.
        """
        settings = self.experiment.tokenizer
        texts = [settings.input_prefix + text for text in rows["text"]]
        inputs, cut = token_ids(tokenizer, settings.encoder_max_len, text=texts)
        features: Features = {"input_ids": inputs, "length": [len(row) for row in inputs], "truncated": cut}
        if "target" in rows:
            labels, cut_labels = token_ids(
                tokenizer, settings.decoder_max_len, text_target=list(rows["target"])
            )
            features |= {
                "labels": labels,
                "reference": list(rows["target"]),
                "lead": [lead(text) for text in rows["text"]],
                "truncated": [either or other for either, other in zip(cut, cut_labels, strict=True)],
            }
        if "id" in rows:
            features["id"] = list(rows["id"])
        return features

    def encoding_key(self) -> Mapping[str, Any]:
        """Return lengths and prefix."""
        settings = self.experiment.tokenizer
        return {
            "family": "summarization-1",
            "encoder_max_len": settings.encoder_max_len,
            "decoder_max_len": settings.decoder_max_len,
            "input_prefix": settings.input_prefix,
        }

    def batches(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> TextPairs:
        """Pad to the longest row of the batch."""
        from dure.data.collating import TextPairs
        from dure.modeling.costs import target_cost

        return TextPairs(
            int(tokenizer.pad_token_id or 0),
            lambda labels: model.prepare_decoder_input_ids_from_labels(labels=labels),
            target_cost(model),
        )

    def objective(self, model: PreTrainedModel, train: datasets.Dataset) -> TokenCrossEntropy:
        """Cross entropy over the tokens of the summaries."""
        from dure.modeling.objectives import TokenCrossEntropy

        return TokenCrossEntropy(self.experiment.objective.label_smoothing)

    def load_exported(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Load what :meth:`export` saved; it generates as the experiment says, whatever was done to the folder since."""
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

        from dure.modeling.loading import set_generation

        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder, local_files_only=True, generation_config=GenerationConfig()
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        set_generation(model, self.experiment, tokenizer)
        return model, tokenizer

    def modules(self, model: PreTrainedModel) -> dict[str, tuple[str, ...]]:
        """Return encoder and decoder with the prefixes of their parameters.

        What lies beside the two belongs to the one that uses it: embeddings to the encoder, which reads with them,
        the output layer to the decoder, which writes with it.
        """
        names = {id(module): name for name, module in model.named_modules()}
        encoder, decoder = (f"{names[id(part)]}." for part in (model.get_encoder(), model.get_decoder()))
        beside: dict[bool, dict[str, None]] = {True: {}, False: {}}
        for name, _ in model.named_parameters():
            if not name.startswith((encoder, decoder)):
                writes = not {"lm_head", "new_output_rows"}.isdisjoint(name.split("."))
                beside[writes][f"{name.rpartition('.')[0]}."] = None
        return {"encoder": (encoder, *beside[False]), "decoder": (decoder, *beside[True])}
