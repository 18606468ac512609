"""Trainers of ``tests.benchmarks.gpu``, and what is measured of a trainer at work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from dure.config.schema import Experiment, Profile
from dure.family import load_family
from dure.modeling.objectives import TokenCrossEntropy
from dure.modeling.output_layer import deferred
from dure.runs.folder import RunFolder
from dure.training.memory import release
from dure.training.trainer import ModelTrainer
from tests.benchmarks.gpu_models import Kind
from tests.benchmarks.output_layer import Head
from tests.benchmarks.throughput import tokenizer
from trainables.red_heart.model import RedHeartModel

_MB = 2**20


def dure_trainer(
    kind: Kind,
    device: str,
    folder: Path,
    *,
    model: PreTrainedModel | None = None,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    deepspeed: str | None = None,
) -> ModelTrainer:
    """Make dure's trainer.

    Args:
        kind: What it trains.
        device: Where.
        folder: Folder of the run.
        model: The model; built from random weights when not given.
        sections: Sections of the experiment, put over those of the kind.
        deepspeed: Settings of DeepSpeed, by name.
    """
    experiment = experiment_of(kind, sections or {})
    profile = profile_of(device, deepspeed)
    return ModelTrainer(
        load_family(experiment),
        kind.build(device) if model is None else model,
        tokenizer(),
        kind.dataset(),
        None,
        profile=profile,
        folder=RunFolder(folder),
    )


def experiment_of(kind: Kind, sections: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """Return the experiment that trains a kind, for as long as it is let."""
    training = {"epochs": 10_000, "batch_size": kind.batch_size, "log_every": 100_000, "precision": "bf16"}
    said: dict[str, Any] = {
        "experiment": {"name": "gpu"},
        "model": {"checkpoint": "none"},
        "training": training,
    }
    for name, section in [*kind.experiment.items(), *sections.items()]:
        said[name] = {**said.get(name, {}), **section} if isinstance(section, Mapping) else section
    return Experiment.model_validate(said)


def profile_of(device: str, deepspeed: str | None = None) -> Profile:
    """Return this machine."""
    said = {"name": "gpu", "device": device, "gpus_per_worker": int(device == "cuda"), "precision": "bf16"}
    return Profile.model_validate(said | {"deepspeed": deepspeed})


def hf_trainer(kind: Kind, device: str, folder: Path) -> Trainer:
    """Make the plain trainer of transformers, with dynamic padding; Red Heart has no loss of its own, and gets dure's."""
    model, tokens, dataset = kind.build(device), tokenizer(), kind.dataset()
    multiple = 8 if device == "cuda" else None
    collate = (
        DataCollatorForSeq2Seq(tokens, model=model, pad_to_multiple_of=multiple)
        if kind.is_seq2seq
        else DataCollatorWithPadding(tokens, pad_to_multiple_of=multiple)
    )
    loss = None
    if kind.model_class is RedHeartModel:
        objective = load_family(experiment_of(kind, {})).objective(model, dataset)

        def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
            return objective(outputs, labels)

    args = TrainingArguments(
        str(folder), num_train_epochs=10_000, per_device_train_batch_size=kind.batch_size, bf16=True,
        use_cpu=device == "cpu", save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        label_names=["labels"], dataloader_pin_memory=device == "cuda",
    )  # fmt: skip
    args._n_gpu = min(args.n_gpu, 1)  # one card, also where there are more
    return Trainer(
        model=model,
        args=args,
        train_dataset=dataset,
        data_collator=collate,
        processing_class=tokens,
        compute_loss_func=loss,
    )


def packing_trainer(kind: Kind, device: str, packs: bool, folder: Path) -> ModelTrainer:
    """Make dure's trainer of a decoder-only model, with packed or padded rows."""
    from trainables.causal.likelihood import score_targets

    model = kind.build(device)
    score_targets(model)
    return dure_trainer(kind, device, folder, model=model, sections={"task": {"packing": packs}})


def adapted(kind: Kind, device: str, checkpoint: Path, in_4bit: bool, folder: Path) -> ModelTrainer:
    """Make dure's trainer of LoRA on a saved model, whose frozen weights are in 4 bits or in bf16."""
    sections: dict[str, dict[str, Any]] = {
        "model": {"checkpoint": str(checkpoint)} | ({"quantization": {}} if in_4bit else {}),
        "lora": {"rank": 16, "alpha": 32, "targets": ["q", "v"]},
    }
    family = load_family(experiment_of(kind, sections))
    model = family.load_model(tokenizer(), profile_of(device))
    return dure_trainer(kind, device, folder, model=model, sections=sections)


@dataclass(frozen=True)
class Measured:
    """What a trainer did after its warm-up."""

    tokens_per_second: float
    """Real tokens, of inputs and targets."""
    steps: int
    """Steps."""
    seconds: float
    """What they took."""
    padding: float
    """Part of all positions that was padding."""
    warm_up_seconds: float
    """What the steps before them took."""
    allocated_mb: float | None
    """Peak of memory in tensors, with the model, from its making on; on CUDA only."""
    reserved_mb: float | None
    """Peak of what the allocator held."""
    foretold_mb: float | None
    """What weights, gradients and Adam's two moments take, by their sizes."""


class Gauge(TrainerCallback):
    """Counts the real tokens of steps and their time, and stops the trainer.

    Args:
        device: Device that trains.
        seconds: How long to measure.
        warm_up: Steps before.
    """

    def __init__(self, device: str, seconds: float, warm_up: int) -> None:
        self.device, self.seconds, self.warm_up = device, seconds, warm_up
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.positions = self.steps = 0
        self.times: list[float] = []

    def attach(self, trainer: Any) -> None:
        """Watch a trainer of transformers."""
        step = trainer.training_step

        def counting(model: Any, batch: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
            tokens, positions = tokens_of(batch)
            self.tokens += tokens
            self.positions += positions
            return step(model, batch, *args, **kwargs)

        trainer.training_step = counting
        trainer.add_callback(self)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to warm up, then to count."""
        if state.global_step in (0, self.warm_up):
            self._look()
            self.tokens.zero_()
            self.positions = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the time is over."""
        self.steps = state.global_step - self.warm_up
        if self.steps > 0 and time.perf_counter() - self.times[-1] >= self.seconds:
            self._look()
            control.should_training_stop = True

    def _look(self) -> None:
        synchronize(self.device)
        self.times.append(time.perf_counter())

    def measured(self, foretold: float | None) -> Measured:
        """Return the figures."""
        first, begin, end = self.times
        tokens, on_cuda = int(self.tokens), self.device == "cuda"
        return Measured(
            tokens_per_second=tokens / (end - begin),
            steps=self.steps,
            seconds=end - begin,
            padding=1 - tokens / self.positions,
            warm_up_seconds=begin - first,
            allocated_mb=torch.cuda.max_memory_allocated() / _MB if on_cuda else None,
            reserved_mb=torch.cuda.max_memory_reserved() / _MB if on_cuda else None,
            foretold_mb=foretold,
        )


def tokens_of(batch: Mapping[str, Any]) -> tuple[torch.Tensor | int, int]:
    """Return the real tokens of a batch, inputs and targets, and all its positions."""
    if "held" in batch:  # rows that may share a sequence
        return sum(len(row["input_ids"]) for row in batch["held"].rows), batch["input_ids"].numel()
    tokens, positions = batch["attention_mask"].sum(), batch["input_ids"].numel()
    labels = batch["labels"]
    if labels.dim() == 2:  # targets, and no classes
        tokens, positions = tokens + (labels != -100).sum(), positions + labels.numel()
    return tokens, positions


def measured(
    make: Callable[[Path], ModelTrainer | Trainer], device: str, seconds: float, *, warm_up: int | None = None
) -> Measured:
    """Make a trainer and let it train for some seconds after a warm-up of some steps: 3, and 1 on a CPU."""
    release()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder))
        foretold = _bytes_by_size(made.model) / _MB if isinstance(made, ModelTrainer) else None
        trainer: Any = made.hf if isinstance(made, ModelTrainer) else made
        trainer.args.save_strategy = "no"
        gauge = Gauge(device, seconds, warm_up or (1 if device == "cpu" else 3))
        gauge.attach(trainer)
        trainer.train()
    return gauge.measured(foretold)


def _bytes_by_size(model: PreTrainedModel) -> int:
    """Return the bytes of weights, and of the gradient and the two moments of every trained one."""
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    return sum(4 * size if is_trained else size for size, is_trained in sizes)


def useful_flops(kind: Kind, device: str, num_rows: int) -> float:
    """Return the FLOPs of a real token, forward and backward: some rows of all lengths alone, which have no padding."""
    model, dataset = kind.build(device), kind.dataset().sort("length")
    sample = dataset.select(np.linspace(0, len(dataset) - 1, num_rows).astype(int))
    flops = tokens = 0
    for row in sample:
        inputs = {"input_ids": torch.tensor([row["input_ids"]], device=device)}
        tokens += len(row["input_ids"])
        if kind.is_seq2seq:
            labels = torch.tensor([row["labels"]], device=device)
            inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
            tokens += len(row["labels"])
        with FlopCounterMode(display=False) as counter, torch.autocast(device, torch.bfloat16):
            model(**inputs).logits.float().sum().backward()
        flops += counter.get_total_flops()
    return flops / tokens


def layer_alone(way: str, device: str, tokens: int, width: int, vocabulary: int) -> dict[str, Any]:
    """Compute the loss of an output layer and its gradients, in bf16; return time, memory and the loss."""
    if way == "linear_cross_entropy" and not hasattr(functional, way):
        return {"note": f"torch {torch.__version__} has no such function"}
    release()
    torch.manual_seed(0)
    head = Head(width, vocabulary, is_trained=True).to(device)
    hidden = torch.randn(1, tokens, width, device=device, requires_grad=True)
    labels = torch.randint(0, vocabulary, (1, tokens), device=device)
    seconds, loss = 0.0, float("nan")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):  # the last counts
        synchronize(device)
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            if way == "linear_cross_entropy":
                options = torch.nn.LinearCrossEntropyOptions()
                value = functional.linear_cross_entropy(
                    hidden[0].bfloat16(), head.lm_head.weight.bfloat16(), labels[0], options=options
                )
            else:
                with deferred(head) if way == "in chunks" else nullcontext():
                    outputs = head(hidden)
                value = TokenCrossEntropy()(outputs, labels)
        value.backward()
        synchronize(device)
        seconds, loss = time.perf_counter() - began, float(value.detach())
        head.lm_head.weight.grad = hidden.grad = None
    row: dict[str, Any] = {"milliseconds": seconds * 1000, "loss": loss, "note": f"loss {loss:.4f}"}
    if device == "cuda":
        row["allocated_mb"] = torch.cuda.max_memory_allocated() / _MB
    return row


def synchronize(device: str) -> None:
    """Wait for all that a GPU was told to do."""
    if device == "cuda":
        torch.cuda.synchronize()
