"""ONNX graphs in the place of the model that they were exported from, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

MODEL, ENCODER, DECODER = "model.onnx", "encoder.onnx", "decoder.onnx"
"""Files of an export: one graph from inputs to logits, or one that reads and one that writes."""


class _Session:
    """A graph that runs on the CPU."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [each.name for each in self._session.get_inputs()]

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        fed = {name: np.ascontiguousarray(inputs[name].numpy()) for name in self._names}
        (answer,) = self._session.run(None, fed)
        return torch.from_numpy(answer)


class OnnxModel(nn.Module):
    """A graph of logits, called as the model that it was."""

    device = torch.device("cpu")

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self._run = _Session(folder / MODEL)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of a batch."""
        return {"logits": self._run(**inputs)}


class _GraphOfEncoder(nn.Module):
    main_input_name = "input_ids"

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._run = _Session(file)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        hidden = self._run(input_ids=input_ids, attention_mask=attention_mask)
        return BaseModelOutput(last_hidden_state=hidden)


class OnnxEncoderDecoder(nn.Module, GenerationMixin):  # type: ignore[misc]  # transformers has no types
    """Two graphs, whose texts transformers searches for as it does with the model that they were."""

    main_input_name = "input_ids"
    base_model_prefix = "model"
    device = torch.device("cpu")
    dtype = torch.float32
    _is_stateful = False
    is_remote_code = staticmethod(lambda: False)
    _supports_cache_class = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.config = AutoConfig.from_pretrained(folder, local_files_only=True)
        self.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        self.generation_config.use_cache = False
        self.encoder = _GraphOfEncoder(folder / ENCODER)
        self._decode = _Session(folder / DECODER)

    def get_encoder(self, *_: Any, **__: Any) -> nn.Module:
        """Return what reads the text."""
        return self.encoder

    @contextmanager
    def _optimize_model_for_decode(self) -> Iterator[None]:
        """Leave the graphs as they are."""
        yield

    def can_generate(self) -> bool:
        """Return that it writes text."""
        return True

    def forward(
        self,
        decoder_input_ids: torch.Tensor,
        encoder_outputs: BaseModelOutput,
        attention_mask: torch.Tensor,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Return the logits of what was written so far."""
        logits = self._decode(
            decoder_input_ids=decoder_input_ids,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            attention_mask=attention_mask,
        )
        return Seq2SeqLMOutput(logits=logits)
