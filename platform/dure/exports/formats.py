"""What a format of an export must be able to do, and the formats that there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dure.config.schema import Experiment
from dure.family import Family
from dure.family.contract import ExportFormat
from dure.imports import require_packages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Trained:
    """What is exported.

    ``example`` are the arguments of a forward pass over two rows, by name.
    """

    family: Family
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    example: Mapping[str, Any]


class Format(ABC):
    """One format of exports."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs beside those of dure, which the extra of its name installs."""
    tolerance: ClassVar[float]
    """Largest difference between two numbers of predictions that counts as none."""

    @abstractmethod
    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Write a model into a folder that is there.

        Raises:
            UserError: The format cannot hold this model or one of its numbers.
        """

    def differs(self, model: PreTrainedModel) -> str:
        """Return in a sentence why texts of this model differ in the format; nothing where only rounding does it."""
        return ""

    def require(self, name: str, experiment: Experiment) -> None:
        """Check what can be known before the model of an experiment is loaded: that the packages are installed.

        Raises:
            UserError: One is not.
        """
        require_packages(self.packages, extra=name, where=f"--format {name}")


class Transformers(Format):
    """A folder that ``from_pretrained`` loads without dure, adapters merged, in safetensors."""

    tolerance = 1e-5

    def write(self, trained: Trained, folder: Path, quantization: str | None) -> None:
        """Write the model as a run leaves it at its end."""
        trained.family.export(trained.model, trained.tokenizer, folder)


def format_of(name: ExportFormat) -> Format:
    """Return a format by its name; what it is made of is imported only now."""
    match name:
        case "transformers":
            return Transformers()
        case "adapter":
            from dure.exports.peft_adapter import PeftAdapter

            return PeftAdapter()
        case "onnx":
            from dure.exports.onnx_graphs import OnnxGraphs

            return OnnxGraphs()
        case "ctranslate2":
            from dure.exports.ctranslate2_model import CTranslate2Model

            return CTranslate2Model()
