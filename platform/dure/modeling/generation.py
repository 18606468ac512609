"""How a model generates: as the experiment says, and in nothing as its checkpoint does."""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from dure.config.schema import Experiment


def set_generation(
    model: PreTrainedModel, experiment: Experiment, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Replace the generation settings of a model by those of an experiment, whole.

    What a checkpoint brings would change predictions (``do_sample``, forced tokens, penalties), beat the experiment's
    lengths (``max_new_tokens``), or be refused when the model is saved (``temperature`` without sampling).

    A text ends where the tokenizer ends a target, and begins as in training: with the configuration's first token.
    """
    said = experiment.generation
    with_beams = {"length_penalty": said.length_penalty, "early_stopping": True} if said.num_beams > 1 else {}
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=said.num_beams,
        max_length=said.max_length,
        min_length=said.min_length,
        no_repeat_ngram_size=said.no_repeat_ngram_size,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
        **with_beams,
    )
