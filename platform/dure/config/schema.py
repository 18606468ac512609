"""What an experiment is: one typed tree, every field with a sentence that ``dure schema`` prints."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from dure.config.data import DataConfig
from dure.config.scalars import Bool, Float, Int, Name, Text, TrackerName
from dure.config.section import Section
from dure.config.storage import StorageConfig
from dure.config.tracking import MlflowConfig, WandbConfig

SCHEDULER_OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
}
"""Options that each schedule of ``transformers.get_scheduler`` takes."""


class ExperimentInfo(Section):
    """Name, description, tags and seed of the experiment."""

    name: Name
    """Name of the experiment; also the name of its folder and of its W&B run."""
    description: str = ""
    """One sentence on what the experiment tries."""
    tags: tuple[Text, ...] = ()
    """Tags for W&B and for the tables."""
    seed: Int = Field(default=42, ge=0, lt=2**32)
    """Seed of weights, data order and dropout."""


class QuantizationConfig(Section):
    """4-bit loading of the frozen base weights (QLoRA)."""

    type: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type of the weights."""
    double: Bool = True
    """Quantise the quantisation constants as well."""


class ModelConfig(Section):
    """Which weights the experiment starts from."""

    checkpoint: Annotated[Text, AfterValidator(os.path.expanduser)]
    """Name on the model hub, or a folder saved with ``save_pretrained``."""
    architecture: Text | None = None
    """``model_type`` of its config.json (``mt5``, ``bert``, ``llama`` …) for rehearsals, which cannot ask the hub."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    quantization: QuantizationConfig | None = None
    """4-bit loading; needs LoRA, because 4-bit weights cannot be trained."""
    use_unsloth: Bool = False
    """Accepted from older configurations; Unsloth does not serve encoder-decoder models, so it is reported and ignored."""


class TokenizerConfig(Section):
    """How text becomes token ids."""

    encoder_max_len: Int = Field(default=512, ge=8)
    """Longest input in tokens; longer ones are truncated, counted and reported."""
    decoder_max_len: Int = Field(default=128, ge=4)
    """Longest target in tokens."""
    input_prefix: str = ""
    """Text put before every input."""
    special_tokens: tuple[Text, ...] = ()
    """Tokens that must stay whole; those that the tokenizer lacks are added and trained."""
    extra_special_tokens: tuple[Text, ...] = ()
    """More of them, so that an experiment can add to what it extends."""
    max_unknown_rate: Float = Field(default=0.2, ge=0.0, le=1.0)
    """Largest part of unknown tokens in the data; above it the tokenizer is taken for the wrong one."""

    @property
    def all_special_tokens(self) -> tuple[str, ...]:
        """``special_tokens`` and ``extra_special_tokens`` in order, each once."""
        return tuple(dict.fromkeys(self.special_tokens + self.extra_special_tokens))


class LoraConfig(Section):
    """Low-rank adapters in place of full fine-tuning."""

    rank: Int = Field(ge=1)
    """Rank of the adapters."""
    alpha: Int = Field(ge=1)
    """Scale of the adapters; the update is multiplied by alpha / rank."""
    dropout: Float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapters."""
    targets: tuple[Text, ...] = Field(min_length=1)
    """Names of the layers that get an adapter, each of at least one layer, or ``all-linear``: all but the output layer."""


class TrainingConfig(Section):
    """How the weights are trained."""

    epochs: Int = Field(default=3, ge=1)
    """Passes over the training rows."""
    max_steps: Int | None = Field(default=None, ge=1)
    """Stop after this many optimiser steps, should ``epochs`` take more."""
    batch_size: Int = Field(default=8, ge=1)
    """Rows in one forward pass, summed over all workers; must be a multiple of their number."""
    eval_batch_size: Int | None = Field(default=None, ge=1)
    """Rows in one validation pass; ``batch_size`` when not given."""
    gradient_accumulation_steps: Int = Field(default=1, ge=1)
    """Forward passes for one optimiser step."""
    batch_tokens: Int | None = Field(default=None, ge=8)
    """Most tokens of one forward pass of a worker, padding included; a step has the same rows, cut by this alone."""
    learning_rate: Float = Field(default=5e-5, gt=0.0, le=1.0)
    """Peak learning rate."""
    scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
    ] = "linear"
    """Learning-rate schedule after the warm-up, which ``constant`` has none of."""
    scheduler_options: dict[str, Annotated[Float, Field(ge=0.0)]] = Field(default_factory=dict)
    """Options of the schedule, such as ``num_cycles`` of ``cosine_with_restarts``."""
    warmup_ratio: Float = Field(default=0.0, ge=0.0, lt=1.0)
    """Part of all optimiser steps in which the learning rate rises."""
    warmup_steps: Int | None = Field(default=None, ge=0)
    """Optimiser steps in which the learning rate rises, instead of ``warmup_ratio``."""
    layer_lr_decay: Float | None = Field(default=None, gt=0.0, le=1.0)
    """Factor on the learning rate from every layer to the one below; the head has the whole rate."""
    weight_decay: Float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Float = Field(default=1.0, gt=0.0)
    """Gradients are clipped to this global norm."""
    ema: Float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay of a moving average of the weights, which validation, selection and the final model then use."""
    eval_every: Annotated[Int, Field(ge=1)] | Literal["epoch"] = "epoch"
    """Validate and save every N optimiser steps, or at the end of every epoch."""
    log_every: Int = Field(default=10, ge=1)
    """Optimiser steps between two records of the training loss."""
    save_total_limit: Int = Field(default=2, ge=1)
    """Checkpoints kept; the best and the last are always among them."""
    keep_epochs: Int | None = Field(default=None, ge=1)
    """Keep the weights of every N-th epoch as files of their own, for sweet spots and crossover."""
    keep_epochs_limit: Int = Field(default=30, ge=1)
    """Such files kept; those of the best, the last and any candidate sweet spot are always among them."""
    best_metric: Text = "eval_rouge_sum"
    """Validation metric that chooses the best checkpoint."""
    higher_is_better: Bool | None = None
    """Whether a larger ``best_metric`` is a better one; a metric knows it by itself, and another answer is an error."""
    early_stopping_patience: Int | None = Field(default=None, ge=1)
    """Stop after this many validations without a better ``best_metric``."""
    evaluate_untrained: Bool = False
    """Validate before the first step too, to show what training gained."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the computation; ``auto`` takes bf16 where the device has it, and fp32 elsewhere."""
    on_oom: Literal["retry", "shrink", "error"] = "retry"
    """Out of memory: compute the step again, or from then on in halved micro-batches, or stop, as DeepSpeed always does."""
    gradient_checkpointing: Bool = False
    """Recompute activations in the backward pass to save memory."""
    compile: Bool = False
    """Train by compiled layers (``torch.compile``): compiling takes seconds to minutes; slower on a CPU."""
    group_by_length: Bool = True
    """Put rows of similar length into one batch, so that little padding is computed."""
    num_data_workers: Int = Field(default=0, ge=0, le=256)
    """Processes that load batches; the rows are memory-mapped, so few are needed."""

    @model_validator(mode="after")
    def _schedule_is_one(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio > 0:
            raise ValueError("give warmup_steps or warmup_ratio, not both")
        allowed = SCHEDULER_OPTIONS[self.scheduler]
        for option in self.scheduler_options:
            if option not in allowed:
                takes = f"only {', '.join(allowed)}" if allowed else "none"
                raise ValueError(f"scheduler_options has '{option}', but {self.scheduler} takes {takes}")
        end = self.scheduler_options.get("lr_end", 1e-7)
        if self.scheduler == "polynomial" and end >= self.learning_rate:
            raise ValueError(f"polynomial ends at lr_end {end:g}, which is not below {self.learning_rate:g}")
        return self

    @property
    def effective_batch_size(self) -> int:
        """Rows that one optimiser step sees."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def rows_evaluated(self) -> int:
        """Rows in one pass of a validation, or of a prediction that does not say how many."""
        return self.eval_batch_size or self.batch_size


class ObjectiveConfig(Section):
    """The loss that training minimises; validation reports the plain one, so that objectives compare."""

    label_smoothing: Float = Field(default=0.0, ge=0.0, lt=1.0)
    """Part of every target that is spread evenly over all classes, or over all tokens of the vocabulary."""
    class_weights: Literal["balanced"] | None = None
    """``balanced`` weighs class c by n / (k * n_c): n training rows, k classes among them, n_c rows of class c."""
    r_drop: Float = Field(default=0.0, ge=0.0)
    """Weight of the disagreement of two passes with different dropout over every row; 0 makes one pass only."""


class GenerationConfig(Section):
    """How text is generated at validation and prediction."""

    num_beams: Int = Field(default=1, ge=1)
    """Beams of the search; 1 is greedy."""
    max_length: Int = Field(default=128, ge=2)
    """Longest generated text in tokens."""
    min_length: Int = Field(default=0, ge=0)
    """Shortest generated text in tokens."""
    length_penalty: Float = 1.0
    """Above 1 favours longer, below 1 shorter texts; used by beam search."""
    no_repeat_ngram_size: Int = Field(default=0, ge=0)
    """No n-gram of this size is generated twice; 0 allows all."""

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is above max_length {self.max_length}")
        return self


class RehearsalConfig(Section):
    """The miniature that ``--rehearse`` trains: the same architecture and settings, small and from random weights."""

    enabled: Bool = False
    """Whether this run is a rehearsal; ``--rehearse`` sets it."""
    hidden_size: Int = Field(default=96, ge=8, le=4096)
    """Width of the miniature."""
    num_layers: Int = Field(default=2, ge=1, le=64)
    """Layers of its encoder, and of its decoder."""
    num_heads: Int = Field(default=4, ge=1)
    """Attention heads."""
    vocab_size: Int = Field(default=2000, ge=100, le=200_000)
    """Largest vocabulary of the tokenizer that is trained on the data."""
    max_steps: Int = Field(default=120, ge=1)
    """Most optimiser steps."""
    num_evaluations: Int = Field(default=3, ge=1)
    """Validations spread over these steps."""
    max_train_rows: Int = Field(default=2000, ge=1)
    """Most training rows."""
    max_dev_rows: Int = Field(default=48, ge=1)
    """Most validation rows."""
    max_encoder_len: Int = Field(default=192, ge=8)
    """Longest input in tokens."""
    max_decoder_len: Int = Field(default=64, ge=4)
    """Longest target and generated text in tokens."""
    learning_rate_scale: Float = Field(default=50.0, gt=0)
    """Factor on the learning rate: random weights need larger steps than pretrained ones."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )
        return self


class Experiment(Section):
    """One experiment: everything that decides its result, and nothing about the machine."""

    family: Text
    """Model family by the dotted name of its module, such as ``my_package.my_family``."""
    experiment: ExperimentInfo
    """Name, description, tags and seed of the experiment."""
    model: ModelConfig
    """Which weights it starts from."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes token ids."""
    data: DataConfig = DataConfig()
    """Where the rows are."""
    training: TrainingConfig = TrainingConfig()
    """How the weights are trained."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """The loss that training minimises."""
    lora: LoraConfig | None = None
    """Low-rank adapters; full fine-tuning when it is not given."""
    generation: GenerationConfig = GenerationConfig()
    """How text is generated."""
    targets: dict[str, Float] = Field(default_factory=dict)
    """What is to be reached, by metric: ``{eval_macro_f1: 0.94}``. It is reported at every validation and in the end whether
    it is, and ``--require-targets`` makes a miss an exit code of 1."""
    tracking: tuple[TrackerName, ...] = ()
    """Where the numbers go beside the run's own folder; ``wandb.enabled: true`` adds ``wandb``."""
    wandb: WandbConfig = WandbConfig()
    """Tracking with Weights & Biases."""
    mlflow: MlflowConfig = MlflowConfig()
    """Tracking with MLflow."""
    rehearsal: RehearsalConfig = RehearsalConfig()
    """What ``--rehearse`` makes of it."""
    task: dict[str, Any] = Field(default_factory=dict)
    """Options of the family, checked by the family's own section."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        budget, longest = self.training.batch_tokens, self.tokenizer.encoder_max_len
        if budget is not None and budget < longest:
            raise ValueError(
                f"training.batch_tokens {budget} is below tokenizer.encoder_max_len {longest}: a row may not fit a batch"
            )
        if self.model.quantization is not None and self.lora is None:
            raise ValueError(
                "model.quantization needs a lora section: 4-bit weights cannot be trained themselves"
            )
        return self

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.experiment.name

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of the trackers, each once."""
        return tuple(dict.fromkeys((*self.tracking, *(("wandb",) if self.wandb.enabled else ()))))


class Profile(Section):
    """A kind of machine: what one trial may use there, and what the hardware can do."""

    name: Name
    """Name of the profile; also the name of its file."""
    description: str = ""
    """The machine in words."""
    device: Literal["cpu", "cuda", "mps"]
    """Device that trains."""
    num_workers: Int = Field(default=1, ge=1)
    """Worker processes of one trial; one worker trains inside the trial's own process."""
    min_workers: Int | None = Field(default=None, ge=1)
    """Fewest workers that a trial makes do with when the cluster has room for no more; ``num_workers`` when not given."""
    cpus_per_worker: Float = Field(default=1.0, gt=0)
    """CPU cores of one worker."""
    gpus_per_worker: Float = Field(default=0.0, ge=0)
    """GPUs of one worker; fractions let small trials share a GPU."""
    max_concurrent_trials: Int | None = Field(default=None, ge=1)
    """Trials side by side; as many as the resources hold when not given."""
    max_restarts: Int = Field(default=3, ge=0)
    """How often a trial is started again from its last checkpoint after a process of it died."""
    memory_mb: Int | None = Field(default=None, ge=1)
    """Memory of the device, for the forecast and for recognising the machine."""
    tflops: Float | None = Field(default=None, gt=0)
    """Peak of one device in 10¹² floating-point operations a second at ``precision``, by its data sheet."""
    cost_per_hour: Float | None = Field(default=None, ge=0)
    """Price of what one trial uses for an hour, in whatever currency; for the forecast."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What ``training.precision: auto`` means here."""
    quantization: Bool = True
    """Whether bitsandbytes loads 4-bit weights here."""
    deepspeed: Text | None = None
    """DeepSpeed settings by which a model is shared out among the workers: a name, or a ``.json`` file."""
    storage: StorageConfig = StorageConfig()
    """Room on its disk."""
    match: tuple[Text, ...] = ()
    """Texts of which one stands in the device's name, so that ``--profile`` can be left out."""

    @property
    def trains_in_process(self) -> bool:
        """Whether a trial trains in its own process; DeepSpeed takes a process for good, so it gets one."""
        return self.num_workers == 1 and self.deepspeed is None

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError("a whole number of GPUs, or a part of one")
        return value

    @model_validator(mode="after")
    def _fits_the_device(self) -> Self:
        if self.deepspeed is not None and self.device == "mps":
            raise ValueError("deepspeed is given, but DeepSpeed does not train on MPS")
        if (self.device == "cuda") != (self.gpus_per_worker > 0):
            needs = "more than 0" if self.device == "cuda" else "0"
            raise ValueError(
                f"gpus_per_worker is {self.gpus_per_worker:g}, but device {self.device} needs {needs}"
            )
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers {self.min_workers} is above num_workers {self.num_workers}")
        if self.num_workers > 1 and self.device == "mps":
            raise ValueError(f"num_workers is {self.num_workers}, but MPS cannot share out a trial")
        if self.num_workers > 1 and not self.gpus_per_worker.is_integer():
            share = f"gpus_per_worker is {self.gpus_per_worker:g}"
            raise ValueError(f"{share}, but {self.num_workers} workers cannot share a GPU")
        return self
