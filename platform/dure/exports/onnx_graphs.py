"""ONNX graphs by torch's own exporter; :mod:`dure.modeling.onnx_model` runs them."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from dure.errors import UserError
from dure.exports.formats import Format, Trained
from dure.modeling.export import merged
from dure.modeling.onnx_model import DECODER, ENCODER, MODEL

_OPSET = 18


class OnnxGraphs(Format):
    """One graph from inputs to logits; of an encoder–decoder one of the encoder and one of the decoder.

    The decoder has no cache: it reads all that was written again for every token, so that long texts cost more than
    with transformers.
    """

    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    tolerance = 1e-3

    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Export the model in fp32, with any number of rows and any length of text."""
        # A copy: what is compared with the export afterwards must not be changed by it.
        model = copy.deepcopy(merged(trained.model)).to("cpu", torch.float32).eval()
        model.set_attn_implementation("eager")
        model.config.save_pretrained(folder)
        trained.tokenizer.save_pretrained(folder)
        example = {name: value.cpu() for name, value in trained.example.items()}
        if trained.family.predicts != "text":
            _export(_Graph(model, list(example)), example, folder / MODEL, "logits")
            return
        if not model.config.is_encoder_decoder:
            raise UserError(
                "a decoder-only model is exported with its cache, which this format has none of",
                where="--format onnx",
                expected="an encoder–decoder, or a model that predicts logits",
            )
        inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
        encoder = _Encoder(model, list(inputs))
        _export(encoder, inputs, folder / ENCODER, "encoder_hidden_states")
        with torch.no_grad():
            hidden = encoder(*inputs.values())
        decoded = {
            "decoder_input_ids": torch.full((len(hidden), 3), model.config.decoder_start_token_id),
            "encoder_hidden_states": hidden,
            "attention_mask": inputs["attention_mask"],
        }
        _export(_Decoder(model, list(decoded)), decoded, folder / DECODER, "logits")


class _Graph(nn.Module):
    """What a graph computes from tensors in the order of ``names``."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.compute(dict(zip(self.names, inputs, strict=True)))

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.model(**inputs)["logits"]
        return logits


class _Encoder(_Graph):
    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden: torch.Tensor = self.model.get_encoder()(**inputs)[0]
        return hidden


class _Decoder(_Graph):
    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden = BaseModelOutput(last_hidden_state=inputs.pop("encoder_hidden_states"))
        logits: torch.Tensor = self.model(encoder_outputs=hidden, use_cache=False, **inputs)["logits"]
        return logits


def _export(graph: _Graph, inputs: Mapping[str, torch.Tensor], file: Path, output: str) -> None:
    """Write a graph; rows, and lengths where a tensor has them, may be any."""
    values = tuple(inputs[name] for name in graph.names)
    shapes = tuple(dict.fromkeys(range(min(2, value.dim())), torch.export.Dim.DYNAMIC) for value in values)
    with _quiet():
        torch.onnx.export(
            graph.eval(),
            values,
            str(file),
            input_names=list(graph.names),
            output_names=[output],
            dynamic_shapes=(shapes,),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling of operators that no model here has."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
