"""Special tokens: keeping them whole in the tokenizer, and giving them rows in the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Make every token whole in ``tokenizer``.

    They are not marked as special in the tokenizer's sense: decoding with ``skip_special_tokens`` must keep
    a speaker such as ``#Person1#``, which is part of the text.
    """
    # A token that the vocabulary has is added as well: only that makes it whole inside a longer word.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])


def close_with_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make every encoded text end in the end-of-sequence token.

    A target without it never teaches a model to stop. Most tokenizers add it themselves; KoBART's does not.
    """
    eos = tokenizer.eos_token_id
    if eos is None or tokenizer("a")["input_ids"][-1:] == [eos]:
        return
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {tokenizer.eos_token}", special_tokens=[(tokenizer.eos_token, eos)]
    )


def resize_embeddings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new_tokens: Sequence[str]
) -> list[int]:
    """Give ``new_tokens`` rows in the input and output embeddings, and return the ids of these rows.

    The matrices grow only when the tokenizer has outgrown them: many are padded (T5 has 32,128 rows for
    32,100 tokens), and then the new tokens take padding rows. New rows start at the mean of the rows of the
    old tokens, so that at first no new token is likelier than an average one.
    """
    state_real_tying(model)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = [int(i) for i in tokenizer.convert_tokens_to_ids(list(new_tokens))]
    if ids:
        old = torch.ones(len(tokenizer), dtype=torch.bool)
        old[ids] = False
        for matrix in embedding_matrices(model):
            if matrix.is_meta:  # It has no numbers.
                continue
            with torch.no_grad():
                matrix[ids] = matrix[: len(tokenizer)][old].float().mean(dim=0).to(matrix.dtype)
    return ids


def embedding_matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the matrices that hold one row per token: one when input and output are tied, else both."""
    matrices = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings()
    if output is not None and output.weight is not matrices[0]:
        matrices.append(output.weight)
    return matrices


def state_real_tying(model: PreTrainedModel) -> None:
    """Make ``config.tie_word_embeddings`` say what the weights are.

    The configurations of T5 and mT5 claim tied embeddings whatever the checkpoint holds. Whoever believes it
    (``resize_token_embeddings`` of transformers, the token training of peft) overwrites mT5's own output
    matrix with the input matrix.
    """
    model.config.tie_word_embeddings = len(embedding_matrices(model)) == 1
