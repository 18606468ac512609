"""A checkpoint with the adapters of an export, put together by transformers and peft alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, BitsAndBytesConfig

from dure.config.schema import ModelConfig
from dure.errors import UserError
from dure.modeling.loading import keep_4bit_trainable
from dure.modeling.replaced import bars_hidden
from dure.modeling.tokens import state_real_tying

_OF_THE_HEAD = ("id2label", "label2id", "problem_type")
"""What the configuration of a classifier says beyond its checkpoint's."""


@bars_hidden()
def adapted_model(settings: ModelConfig, folder: Path) -> Any:
    """Return a checkpoint with the adapters that an export holds, on the CPU: in fp32, or packed as they were trained on it.

    Raises:
        UserError: The checkpoint is not at hand, or what unpacks it.
    """
    here = AutoConfig.from_pretrained(folder, local_files_only=True)
    checkpoint, revision = settings.checkpoint, settings.revision or "main"
    known: Any = getattr(transformers, (here.architectures or [""])[0])
    packed = getattr(here, "quantization_config", None)
    packing = {} if packed is None else {"quantization_config": BitsAndBytesConfig.from_dict(packed)}
    try:
        config = AutoConfig.from_pretrained(checkpoint, revision=revision)
        for name in _OF_THE_HEAD:
            setattr(config, name, getattr(here, name))
        base = known.from_pretrained(
            checkpoint,
            revision=revision,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            **packing,
        )
    except (OSError, ImportError) as error:
        reason = str(error).split("\n", 1)[0][:160]
        raise UserError(
            f"its adapters need the checkpoint '{checkpoint}', which cannot be loaded ({reason})",
            where=str(folder),
            expected=f"the checkpoint at '{checkpoint}', or the model hub within reach",
            hint="dure export RUN --to DIR --format transformers has both in one",
        ) from None
    keep_4bit_trainable(base)  # so that their scales are those that were measured
    state_real_tying(base)
    if here.vocab_size > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(here.vocab_size, mean_resizing=False)
    model = PeftModel.from_pretrained(base, str(folder))
    if base.can_generate():
        base.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.eval()
