"""Keys of Hugging Face's arguments and of older configurations, and what each is called in dure: data, read by others.

Sources: ``Seq2SeqTrainingArguments``, ``GenerationConfig``, ``BitsAndBytesConfig`` and ``LoraConfig`` of transformers
and peft, their example scripts' arguments, and the YAML files of the five systems that dure replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNSAID = object()
"""In :attr:`Alias.values`: the old value is what dure does unless it is told otherwise."""


@dataclass(frozen=True)
class Alias:
    """What became of an old key.

    Attributes:
        key: Dotted key of an experiment; None where there is none.
        note: What differs; where there is no key, why and what serves instead.
        values: Old value (in lower case) to new one, where they differ.
        is_open: Whether a value that ``values`` lacks is taken as it is.
    """

    key: str | None
    note: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    is_open: bool = True


def _none(note: str) -> Alias:
    return Alias(None, note)


def _all(alias: Alias, names: str) -> dict[str, Alias]:
    return dict.fromkeys(names.split(), alias)


_ROWS = "it counts the rows of all workers together, so that every machine computes the same"
_ALWAYS = "dure always does"
_PROFILE = _none("it belongs to the machine: --profile NAME, or a file of yours")
_FOLDER = _none("--output DIR says where a run goes")
_VERB = _none("verbs say what is done: dure train, predict, score")
_TRACKERS = _none("dure sends to W&B only; `wandb` has its settings")
_QUANTIZED = {"true": {"type": "nf4", "double": True}, "false": None}
_PRECISIONS = {
    **dict.fromkeys(("bf16", "bfloat16", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("fp16", "float16", "torch.float16"), "fp16"),
    **dict.fromkeys(("fp32", "float32", "torch.float32", "no"), "fp32"),
}
_METRICS = {
    "loss": "eval_loss",
    **{
        name: f"eval_{name}"
        for name in ("rouge_sum", "rouge1", "rouge2", "accuracy", "macro_f1", "weighted_f1")
    },
    **dict.fromkeys(("rougel", "eval_rougel", "rouge-l"), "eval_rougeL"),
    **dict.fromkeys(("rougelsum", "eval_rougelsum"), "eval_rougeLsum"),
    **dict.fromkeys(("rouge-1",), "eval_rouge1"),
    **dict.fromkeys(("rouge-2",), "eval_rouge2"),
    **dict.fromkeys(("rouge", "eval_rouge", "eval_rouge_sum", "final_score"), "eval_rouge_sum"),
    **dict.fromkeys(("f1", "eval_f1", "f1_macro", "eval_f1_macro"), "eval_macro_f1"),
    **dict.fromkeys(("f1_weighted", "eval_f1_weighted"), "eval_weighted_f1"),
}

TRAINING: dict[str, Alias] = {
    **_all(
        Alias("training.batch_size", _ROWS),
        "per_device_train_batch_size per_gpu_train_batch_size train_batch_size micro_batch_size",
    ),
    **_all(
        Alias("training.eval_batch_size", _ROWS),
        "per_device_eval_batch_size per_gpu_eval_batch_size inference.batch_size test_batch_size",
    ),
    **_all(Alias("training.epochs"), "num_train_epochs num_epochs n_epochs max_epochs total_epochs epoch"),
    "max_steps": Alias("training.max_steps", values={"-1": UNSAID, "0": UNSAID}),
    **_all(
        Alias("training.gradient_accumulation_steps"),
        "gradient_accumulation accumulate_grad_batches accumulation_steps grad_accum",
    ),
    **_all(Alias("training.learning_rate"), "lr base_lr"),
    **_all(
        Alias(
            "training.scheduler",
            values={
                name: name
                for name in (
                    *("linear", "cosine", "cosine_with_restarts", "polynomial"),
                    *("constant", "constant_with_warmup"),
                )
            },
            is_open=False,
        ),
        "lr_scheduler_type lr_scheduler scheduler_type",
    ),
    "lr_scheduler_kwargs": Alias("training.scheduler_options"),
    **_all(Alias("training.warmup_ratio"), "warmup_proportion warmup"),
    "num_warmup_steps": Alias("training.warmup_steps"),
    **_all(Alias("training.max_grad_norm"), "gradient_clip_val max_norm clip_grad_norm"),
    **_all(Alias("training.ema"), "ema_decay"),
    **_all(Alias("training.layer_lr_decay"), "layerwise_lr_decay llrd"),
    **_all(Alias("training.log_every", "in optimiser steps"), "logging_steps log_steps logging_step"),
    "eval_steps": Alias("training.eval_every"),
    "save_steps": Alias("training.eval_every", "dure saves whenever it validates"),
    **_all(
        Alias(
            "training.eval_every",
            values={"epoch": "epoch", "steps": UNSAID},
            is_open=False,
            note="epoch, or a number of steps; without a validation table (data.dev: null) nothing is validated",
        ),
        "eval_strategy evaluation_strategy",
    ),
    "save_strategy": Alias(
        "training.eval_every", "dure saves whenever it validates", {"epoch": "epoch", "steps": UNSAID}, False
    ),
    "metric_for_best_model": Alias("training.best_metric", values=_METRICS),
    "best_model_metric": Alias("training.best_metric", values=_METRICS),
    "greater_is_better": Alias("training.higher_is_better"),
    **_all(Alias("training.early_stopping_patience"), "patience early_stopping_epochs"),
    "eval_on_start": Alias("training.evaluate_untrained"),
    "bf16": Alias("training.precision", values={"true": "bf16", "false": "fp32"}),
    "fp16": Alias("training.precision", values={"true": "fp16", "false": "fp32"}),
    **_all(
        Alias("training.precision", values=_PRECISIONS, is_open=False), "mixed_precision torch_dtype dtype"
    ),
    "bnb_4bit_compute_dtype": Alias("training.precision", values=_PRECISIONS, is_open=False),
    **_all(Alias("training.gradient_checkpointing"), "use_gradient_checkpointing activation_checkpointing"),
    "train_sampling_strategy": Alias(
        "training.group_by_length", values={"group_by_length": True, "random": False}, is_open=False
    ),
    **_all(Alias("training.num_data_workers"), "dataloader_num_workers num_workers data_workers"),
    **_all(Alias("objective.label_smoothing"), "label_smoothing_factor"),
    **_all(Alias("objective.r_drop"), "rdrop_alpha r_drop_alpha rdrop use_rdrop"),
    **_all(
        Alias(
            "objective.class_weights",
            values={"true": "balanced", "balanced": "balanced", "false": UNSAID},
            is_open=False,
        ),
        "class_weight use_class_weights",
    ),
    **_all(Alias("experiment.seed", "it decides the order of the rows too"), "seed data_seed random_seed"),
}
"""How the weights are trained."""

MODEL: dict[str, Alias] = {
    **_all(
        Alias("model.checkpoint"),
        "model_name_or_path model_name pretrained_model_name_or_path pretrained_model pretrained base_model "
        "general.model_name model.name model.path",
    ),
    "max_length": Alias(
        "generation.max_length", "of generated text; the input's is tokenizer.encoder_max_len"
    ),
    "tokenizer.max_length": Alias("tokenizer.encoder_max_len"),
    "model_type": Alias("model.architecture"),
    "model_revision": Alias("model.revision"),
    "qlora.use_unsloth": Alias("model.use_unsloth"),
    **_all(Alias("model.quantization", values=_QUANTIZED, is_open=False), "use_qlora load_in_4bit use_4bit"),
    "bnb_4bit_quant_type": Alias("model.quantization.type"),
    **_all(Alias("model.quantization.double"), "bnb_4bit_use_double_quant use_double_quant use_nested_quant"),
    **_all(Alias("lora.rank"), "lora_rank lora_r lora.r qlora.r qlora.rank peft.r"),
    **_all(Alias("lora.alpha"), "lora_alpha qlora.alpha"),
    **_all(Alias("lora.dropout"), "lora_dropout qlora.dropout"),
    **_all(Alias("lora.targets"), "target_modules lora_target_modules"),
    **_all(
        Alias("tokenizer.encoder_max_len"),
        "max_source_length max_input_length max_seq_length max_seq_len max_len",
    ),
    **_all(Alias("tokenizer.decoder_max_len"), "max_target_length max_output_length"),
    **_all(Alias("tokenizer.input_prefix"), "source_prefix prefix"),
    **_all(Alias("tokenizer.special_tokens"), "additional_special_tokens"),
    **_all(
        Alias("generation.max_length"),
        "generation_max_length generate_max_length val_max_target_length max_new_tokens generation_max_new_tokens",
    ),
    **_all(Alias("generation.min_length"), "generation_min_length generate_min_length min_new_tokens"),
    **_all(Alias("generation.num_beams"), "generation_num_beams beam_size"),
    **_all(Alias("generation.length_penalty"), "generation_length_penalty"),
    **_all(Alias("generation.no_repeat_ngram_size"), "generation_no_repeat_ngram_size"),
}
"""What is trained, and how it reads and writes."""

DATA: dict[str, Alias] = {
    **_all(Alias("data.train"), "train_file train_path train_data train_csv"),
    **_all(
        Alias("data.dev"),
        "validation_file valid_file dev_file eval_file val_file dev_path val_path valid_path",
    ),
    **_all(Alias("data.test"), "test_file test_path test_data"),
    **_all(Alias("data.columns.text"), "text_column dialogue_column source_column input_column"),
    **_all(Alias("data.columns.target"), "summary_column target_column"),
    "label_column": Alias("data.columns.label"),
    "id_column": Alias("data.columns.id"),
    **_all(Alias("data.max_train_rows"), "max_train_samples train_samples"),
    **_all(Alias("data.max_dev_rows"), "max_eval_samples max_val_samples"),
    **_all(Alias("data.train_ratio"), "data_ratio"),
}
"""Where the rows are."""

TRACKING: dict[str, Alias] = {
    **_all(Alias("experiment.name"), "run_name wandb.name wandb.run_name experiment_name"),
    "wandb.tags": Alias("experiment.tags"),
    "use_wandb": Alias("wandb.enabled"),
    "report_to": Alias(
        "wandb.enabled",
        values={"wandb": True, "all": True, "none": False},
        is_open=False,
        note="W&B or nothing",
    ),
    "wandb_project": Alias("wandb.project"),
    "wandb_entity": Alias("wandb.entity"),
    "project": Alias("wandb.project"),
    **_all(_TRACKERS, "trackio_space_id trackio_bucket_id trackio_static_space_id"),
    "wandb.log_model": _none("models stay in the run's folder; storage.url of a profile mirrors it"),
}
"""Who it is and who is told."""

GONE: dict[str, Alias] = {
    **_all(
        _FOLDER, "output_dir overwrite_output_dir logging_dir model_path output_path result_path save_dir"
    ),
    **_all(_VERB, "do_train do_eval do_predict prediction_loss_only"),
    **_all(_none("--resume goes on with a run's folder"), "resume_from_checkpoint ignore_data_skip ckt_path"),
    **_all(
        _none(_ALWAYS),
        "load_best_model_at_end predict_with_generate remove_unused_columns restore_callback_states_from_checkpoint "
        "logging_nan_inf_filter average_tokens_across_devices dataloader_in_order full_determinism "
        "include_tokens_per_second include_num_input_tokens_seen",
    ),
    **_all(
        _none(
            "AdamW is the optimizer: training.learning_rate, weight_decay and max_grad_norm are what it takes"
        ),
        "optim optimizer optim_args adam_beta1 adam_beta2 adam_epsilon adafactor optim_target_modules",
    ),
    **_all(
        _PROFILE,
        "use_cpu no_cuda device n_gpu local_rank fsdp fsdp_config deepspeed tf32 ddp_find_unused_parameters "
        "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout accelerator_config "
        "parallelism_config dataloader_pin_memory bf16_full_eval fp16_full_eval fp16_opt_level half_precision_backend "
        "max_memory_mb",
    ),
    **_all(
        _none("every step of a run is recorded; --verbose and --debug show more"),
        "logging_strategy logging_first_step log_level log_level_replica log_on_each_node disable_tqdm debug "
        "skip_memory_metrics",
    ),
    **_all(
        _none("a run keeps what it needs to go on with; training.save_total_limit says how much"),
        "save_only_model save_on_each_node save_safetensors enable_jit_checkpoint",
    ),
    **_all(
        _none("nothing is sent to the hub; final_model/ of a run is what you would push"),
        "push_to_hub hub_model_id hub_token hub_private_repo hub_strategy hub_always_push hub_revision",
    ),
    **_all(
        _none("dure computes metrics over all rows at once and does not need it"),
        "eval_delay eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics "
        "include_inputs_for_metrics batch_eval_metrics label_names length_column_name",
    ),
    **_all(
        _none("training.num_data_workers is all that batches need: rows are memory-mapped"),
        "dataloader_prefetch_factor dataloader_persistent_workers dataloader_multiprocessing_context "
        "dataloader_drop_last",
    ),
    **_all(
        _none("training.gradient_checkpointing has no options"),
        "gradient_checkpointing_kwargs activation_checkpointing_kwargs",
    ),
    **_all(
        _none("dure has its own fast path and no option for it"),
        "torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache "
        "torch_empty_cache_steps use_flash_attention attn_implementation sortish_sampler use_rslora use_dora",
    ),
    "auto_find_batch_size": _none("training.on_oom: shrink halves the batch when memory does not suffice"),
    "neftune_noise_alpha": _none("no noise on embeddings; objective.r_drop and label_smoothing regularise"),
    "early_stopping_threshold": _none("any better value of training.best_metric counts"),
    **_all(
        _none("text is generated by beam search or greedily, so that a prediction can be repeated"),
        "do_sample temperature top_k top_p typical_p num_beam_groups diversity_penalty penalty_alpha",
    ),
    **_all(
        _none("generation.no_repeat_ngram_size keeps texts from repeating themselves"),
        "repetition_penalty encoder_repetition_penalty encoder_no_repeat_ngram_size",
    ),
    "early_stopping": _none(
        "beam search stops as soon as it has its beams; training.early_stopping_patience stops a run"
    ),
    "num_return_sequences": _none("a row gets one text"),
    "generation_config": _none("the section generation says it all; what the checkpoint brings is replaced"),
    **_all(
        _none("the checkpoint's tokenizer says so"),
        "bos_token eos_token pad_token unk_token tokenizer_name use_fast padding truncation pad_to_multiple_of "
        "forced_bos_token_id forced_eos_token_id decoder_start_token_id",
    ),
    "remove_tokens": _none(_ALWAYS),
    "load_in_8bit": _none("4 bits or none: model.quantization"),
    **_all(
        _none("adapters are plain LoRA: lora.rank, alpha, dropout, targets"),
        "bias task_type fan_in_fan_out inference_mode",
    ),
    "modules_to_save": _none("new tokens and new heads are trained whole by themselves"),
    "use_peft": _none("a section lora says so; without one the whole model trains"),
    "use_lora": _none("a section lora says so; without one the whole model trains"),
    "num_labels": _none("the classes are those of the training table"),
    "general.data_path": _none("data.train, data.dev and data.test name the files"),
    **_all(_none("dure crossval EXPERIMENT --folds N"), "n_folds num_folds k_folds n_splits"),
    **_all(
        _none("dure sweep EXPERIMENT, or dure unified-train, searches the learning rate"),
        "lr_sweep_range lr_sweep_points",
    ),
    **_all(
        _none("dure progressive EXPERIMENT has options for it"),
        "start_ratio step_size max_ratio epochs_per_stage progressive",
    ),
}
"""What has no successor, and why."""

ALIASES: dict[str, Alias] = {**TRAINING, **MODEL, **DATA, **TRACKING, **GONE}
"""Every old key, in lower case, by its last name or with the section before it."""
