"""ONNX graphs by torch's own exporter, and onnxruntime in the place of the model."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from dure.errors import UserError
from dure.exports.formats import Format, Trained
from dure.family import Family
from dure.modeling.export import merged_or_same

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MODEL, _ENCODER, _DECODER = "model.onnx", "encoder.onnx", "decoder.onnx"
_OPSET = 18


class OnnxGraphs(Format):
    """One graph from inputs to logits; of an encoder–decoder one of the encoder and one of the decoder.

    The decoder has no cache: it reads all that was written anew for every token, so that long texts cost more than
    with transformers.
    """

    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    tolerance = 1e-3

    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Export the model in fp32, with any number of rows and any length of text."""
        # A copy: what is compared with the export afterwards must not be changed by it.
        model = copy.deepcopy(merged_or_same(trained.model)).to("cpu", torch.float32).eval()
        model.set_attn_implementation("eager")
        model.config.save_pretrained(folder)
        trained.tokenizer.save_pretrained(folder)
        example = {name: value.cpu() for name, value in trained.example.items()}
        if trained.family.predicts != "text":
            _export(_Graph(model, list(example)), example, folder / _MODEL, "logits")
            return
        if not model.config.is_encoder_decoder:
            raise UserError(
                "a decoder-only model is exported with its cache, which this format has none of",
                where="--format onnx",
                expected="an encoder–decoder, or a model that predicts logits",
            )
        inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
        encoder = _Encoder(model, list(inputs))
        _export(encoder, inputs, folder / _ENCODER, "encoder_hidden_states")
        with torch.no_grad():
            hidden = encoder(*inputs.values())
        decoded = {
            "decoder_input_ids": torch.full((len(hidden), 3), model.config.decoder_start_token_id),
            "encoder_hidden_states": hidden,
            "attention_mask": inputs["attention_mask"],
        }
        _export(_Decoder(model, list(decoded)), decoded, folder / _DECODER, "logits")

    def read(self, family: Family, folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load the graphs; the texts that they write are searched for by transformers."""
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if family.predicts != "text":
            return OnnxModel(folder), tokenizer
        return OnnxEncoderDecoder(folder), tokenizer


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
        self._run = _Session(folder / _MODEL)

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
        self.encoder = _GraphOfEncoder(folder / _ENCODER)
        self._decode = _Session(folder / _DECODER)

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
