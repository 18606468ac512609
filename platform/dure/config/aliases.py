"""Keys of Hugging Face's arguments and of older configurations, and what each is called in dure.

Sources: ``Seq2SeqTrainingArguments``, ``GenerationConfig``, ``BitsAndBytesConfig`` and ``LoraConfig`` of transformers
and peft, their example scripts' arguments, and the YAML files of the five systems that dure replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from dure.config.scalars import TrackerName

UNSAID = object()
"""In place of a new value: the old one is what dure does unless it is told otherwise."""

_RENAMED = """
training.batch_size | per_device_train_batch_size per_gpu_train_batch_size train_batch_size micro_batch_size
training.eval_batch_size | per_device_eval_batch_size per_gpu_eval_batch_size inference.batch_size test_batch_size
training.epochs | num_train_epochs num_epochs n_epochs max_epochs total_epochs epoch
training.max_steps | max_steps
training.batch_tokens | max_tokens max_tokens_per_batch tokens_per_batch
training.gradient_accumulation_steps | gradient_accumulation accumulate_grad_batches accumulation_steps grad_accum
training.learning_rate | lr base_lr
training.scheduler | lr_scheduler_type lr_scheduler scheduler_type
training.scheduler_options | lr_scheduler_kwargs
training.warmup_ratio | warmup_proportion warmup
training.warmup_steps | num_warmup_steps
training.max_grad_norm | gradient_clip_val gradient_clipping gradient_clip clip_grad grad_clip max_norm clip_grad_norm
training.ema | ema_decay
training.layer_lr_decay | layerwise_lr_decay llrd
training.log_every | logging_steps log_steps logging_step
training.eval_every | eval_steps save_steps eval_strategy evaluation_strategy save_strategy evals_per_epoch saves_per_epoch
    val_check_interval
training.best_metric | metric_for_best_model best_model_metric monitor metric
training.higher_is_better | greater_is_better
training.early_stopping_patience | patience early_stopping_epochs
training.evaluate_untrained | eval_on_start
training.precision | bf16 fp16 mixed_precision torch_dtype dtype bnb_4bit_compute_dtype
training.gradient_checkpointing | use_gradient_checkpointing activation_checkpointing
training.compile | torch_compile
training.group_by_length | train_sampling_strategy
training.num_data_workers | dataloader_num_workers num_workers data_workers
objective.label_smoothing | label_smoothing_factor
objective.r_drop | rdrop_alpha r_drop_alpha rdrop use_rdrop
objective.class_weights | class_weight use_class_weights
experiment.seed | seed data_seed random_seed
model.checkpoint | model_name_or_path model_name pretrained_model_name_or_path pretrained_model pretrained base_model
    general.model_name model.name model.path
model.architecture | model_type
model.revision | model_revision
model.use_unsloth | qlora.use_unsloth
model.quantization | use_qlora load_in_4bit use_4bit quantization_bit adapter
model.quantization.type | bnb_4bit_quant_type
model.quantization.double | bnb_4bit_use_double_quant use_double_quant use_nested_quant
lora.rank | lora_rank lora_r lora.r qlora.r qlora.rank peft.r
lora.alpha | lora_alpha qlora.alpha
lora.dropout | lora_dropout qlora.dropout
lora.targets | target_modules lora_target_modules lora_target lora_target_linear
tokenizer.encoder_max_len | tokenizer.max_length max_source_length max_input_length max_seq_length max_seq_len max_len
    sequence_len cutoff_len model_max_length max_prompt_length
tokenizer.decoder_max_len | max_target_length max_output_length
tokenizer.input_prefix | source_prefix prefix
tokenizer.special_tokens | additional_special_tokens
generation.max_length | max_length generation_max_length generate_max_length val_max_target_length max_new_tokens
    generation_max_new_tokens
generation.min_length | generation_min_length generate_min_length min_new_tokens
generation.num_beams | generation_num_beams beam_size
generation.length_penalty | generation_length_penalty
generation.no_repeat_ngram_size | generation_no_repeat_ngram_size
data.train | train_file train_path train_data train_csv
data.dev | validation_file valid_file dev_file eval_file val_file dev_path val_path valid_path
    val_set_size val_size data.val data.valid data.validation
data.test | test_file test_path test_data
data.columns.text | text_column dialogue_column source_column input_column
data.columns.target | summary_column target_column
data.columns.label | label_column
data.columns.id | id_column
data.max_train_rows | max_train_samples train_samples max_samples
data.max_dev_rows | max_eval_samples max_val_samples
data.train_ratio | data_ratio
experiment.name | run_name wandb.name wandb.run_name experiment_name wandb_name
experiment.tags | wandb.tags
wandb.enabled | use_wandb
tracking | report_to
wandb.project | wandb_project project project_name
wandb.entity | wandb_entity
"""
"""Key of an experiment: the old keys that it takes the place of. A line that is indented goes on with the last."""


_GONE = """
dure sends to W&B, TensorBoard and MLflow, as `tracking` says | trackio_space_id trackio_bucket_id trackio_static_space_id
models stay in the run's folder; storage.url of a profile mirrors it | wandb.log_model wandb_log_model wandb_watch
the file or name of an experiment stands behind the verb, as in dure train FILE | config config_file config_path
--output DIR says where a run goes | output_dir overwrite_output_dir logging_dir log_dir model_path output_path result_path
    save_dir
verbs say what is done: dure train, predict, score | do_train do_eval do_predict prediction_loss_only
--resume goes on with a run's folder | resume resume_from_checkpoint ignore_data_skip ckt_path
dure always does | load_best_model_at_end save_best predict_with_generate remove_unused_columns
    restore_callback_states_from_checkpoint logging_nan_inf_filter average_tokens_across_devices dataloader_in_order
    full_determinism include_tokens_per_second include_num_input_tokens_seen remove_tokens strict plot_loss
    overwrite_cache preprocessing_num_workers dataset_num_proc dataset_processes dataset_prepared_path
AdamW is the optimizer: training.learning_rate, weight_decay and max_grad_norm are what it takes | optim optimizer
    optim_args adam_beta1 adam_beta2 adam_epsilon adafactor optim_target_modules
it belongs to the machine: --profile NAME, or a file of yours | use_cpu device_map no_cuda device n_gpu local_rank fsdp
    fsdp_config deepspeed num_gpus num_processes profile tf32 ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph
    ddp_backend ddp_timeout accelerator_config parallelism_config dataloader_pin_memory bf16_full_eval fp16_full_eval
    fp16_opt_level half_precision_backend max_memory_mb
every step of a run is recorded; --verbose and --debug show more | logging_strategy logging_first_step log_level
    log_level_replica log_on_each_node disable_tqdm debug skip_memory_metrics
a run keeps what it needs to go on with; training.save_total_limit says how much | save_only_model save_on_each_node
    save_safetensors enable_jit_checkpoint
nothing is sent to the hub; final_model/ of a run is what you would push | push_to_hub hub_model_id hub_token
    hub_private_repo hub_strategy hub_always_push hub_revision
dure computes metrics over all rows at once and does not need it | eval_delay eval_do_concat_batches
    eval_use_gather_object eval_accumulation_steps include_for_metrics include_inputs_for_metrics batch_eval_metrics
    label_names length_column_name
training.num_data_workers is all that batches need: rows are memory-mapped | dataloader_prefetch_factor
    dataloader_persistent_workers dataloader_multiprocessing_context dataloader_drop_last
training.gradient_checkpointing has no options | gradient_checkpointing_kwargs activation_checkpointing_kwargs
training.compile has no options | torch_compile_backend torch_compile_mode
dure has its own fast path and no option for it | use_liger_kernel liger_kernel_config use_cache torch_empty_cache_steps use_flash_attention attn_implementation
    sortish_sampler flash_attention flash_attn sdp_attention xformers_attention
training.on_oom: shrink halves the batch when memory does not suffice | auto_find_batch_size
no noise on embeddings; objective.r_drop and label_smoothing regularise | neftune_noise_alpha
any better value of training.best_metric counts | early_stopping_threshold
text is generated by beam search or greedily, so that a prediction can be repeated | do_sample temperature top_k top_p
    typical_p num_beam_groups diversity_penalty penalty_alpha
generation.no_repeat_ngram_size keeps texts from repeating themselves | repetition_penalty encoder_repetition_penalty
    encoder_no_repeat_ngram_size
beam search stops as soon as it has its beams; training.early_stopping_patience stops a run | early_stopping
a row gets one text | num_return_sequences
the checkpoint says how large a model is, and task.preset where a family has several | hidden_dim hidden_size num_layers num_heads
    model_params
-1 trains one epoch, --rehearse a miniature, and dure unified-test --preset tiny --samples 32 tries it all | quick one_epoch_mode
    rehearse
the section generation says it all; what the checkpoint brings is replaced | generation_config
the checkpoint's tokenizer says so | tokenizer_type bos_token eos_token pad_token unk_token tokenizer_name use_fast padding
    truncation pad_to_multiple_of forced_bos_token_id forced_eos_token_id decoder_start_token_id
4 bits or none: model.quantization | load_in_8bit
adapters are plain LoRA: lora.rank, alpha, dropout, targets | bias task_type fan_in_fan_out inference_mode use_rslora
    use_dora peft_use_dora peft_use_rslora loraplus_lr_ratio loraplus_lr_embedding lora_fan_in_fan_out
new tokens and new heads are trained whole by themselves | modules_to_save lora_modules_to_save additional_target
a section lora says so; without one the whole model trains | use_peft use_lora finetuning_type
`family` says what is trained, and `task` how | stage rl rl_beta pref_beta pref_loss pref_ftx dpo_beta rpo_alpha loss_type
task.packing of instruction fine-tuning, which is on by itself | packing sample_packing eval_packing eval_sample_packing
    neat_packing pad_to_sequence_len
task.chat_template and task.system of instruction fine-tuning say how turns are written | chat_template template
    default_system_message system_prompt chat_template_jinja
task.loss of instruction fine-tuning says which tokens are learned | train_on_inputs train_on_prompt mask_history
    train_on_eos roles_to_train completion_only_loss assistant_only_loss
data.columns names the columns of a table | dataset_text_field
no code of a checkpoint is run | trust_remote_code
the classes are those of the training table | num_labels
data.train, data.dev and data.test name the files | general.data_path datasets dataset dataset_name dataset_dir
    test_datasets eval_dataset
dure batch EXPERIMENT --seeds N trains it with several | seeds num_seeds n_seeds
nothing is frozen but beneath adapters (lora); training.layer_lr_decay moves lower layers less | freeze freeze_layers
    freeze_encoder freeze_backbone freeze_base_model freeze_embeddings
rare classes weigh more by objective.class_weights: balanced | focal focal_loss focal_gamma
the checkpoint's configuration says so; lora.dropout is that of adapters | training.dropout model.dropout
    hidden_dropout_prob attention_probs_dropout_prob
dure crossval EXPERIMENT --folds N | n_folds num_folds k_folds n_splits
dure sweep EXPERIMENT, or dure unified-train, searches the learning rate | lr_sweep_range lr_sweep_points
dure progressive EXPERIMENT has options for it | start_ratio step_size max_ratio epochs_per_stage progressive
"""
"""What has no successor, and why: the reason, and the old keys that it holds for."""

_ROWS = "it counts the rows of all workers together, so that every machine computes the same"
_NOTES = {
    "training.batch_size": _ROWS,
    "training.eval_batch_size": _ROWS,
    "training.log_every": "in optimiser steps",
    "experiment.seed": "it decides the order of the rows too",
    **dict.fromkeys(("save_steps", "save_strategy"), "dure saves whenever it validates"),
    **dict.fromkeys(
        ("eval_strategy", "evaluation_strategy"),
        "epoch, or a number of steps; without a validation table (data.dev: null) nothing is validated",
    ),
    **dict.fromkeys(("evals_per_epoch", "saves_per_epoch"), "epoch, or a number of steps"),
    "quantization_bit": "4 bits or none",
    "adapter": "a section lora says that there are adapters",
    "max_length": "of generated text; the input's is tokenizer.encoder_max_len",
    "report_to": "W&B, TensorBoard, MLflow or nothing",
}
"""What differs, by new key or by old."""


def _rows(table: str) -> Iterator[tuple[str, str]]:
    """Give every old name of a table with what it stands behind."""
    for row in table.strip().replace("\n    ", " ").splitlines():
        heading, _, names = row.partition(" | ")
        for name in names.split():
            yield name, heading


_METRICS = dict(
    _rows("""
eval_loss | loss val_loss valid_loss validation_loss
eval_rouge_sum | rouge_sum rouge eval_rouge eval_rouge_sum final_score
eval_rouge1 | rouge1 rouge-1
eval_rouge2 | rouge2 rouge-2
eval_rougeL | rougel eval_rougel rouge-l
eval_rougeLsum | rougelsum eval_rougelsum
eval_accuracy | accuracy
eval_macro_f1 | macro_f1 f1 eval_f1 f1_macro eval_f1_macro
eval_weighted_f1 | weighted_f1 f1_weighted eval_f1_weighted
""")
)
_FORMATS = dict(
    _rows("""
bf16 | bf16 bfloat16 torch.bfloat16
fp16 | fp16 float16 torch.float16
fp32 | fp32 float32 torch.float32 no
""")
)
_SCHEDULES = "linear cosine cosine_with_restarts polynomial constant constant_with_warmup"
_QUANTIZED = {"true": {"type": "nf4", "double": True}, "false": None}
_VALIDATED = {"epoch": "epoch", "steps": UNSAID}
_VALUES: dict[str, Mapping[str, Any]] = {
    "training.max_steps": {"-1": UNSAID, "0": UNSAID},
    "training.scheduler": {name: name for name in _SCHEDULES.split()},
    **dict.fromkeys(("eval_strategy", "evaluation_strategy", "save_strategy"), _VALIDATED),
    "evals_per_epoch": {"1": "epoch"},
    "saves_per_epoch": {"1": "epoch"},
    "training.best_metric": _METRICS,
    "bf16": {"true": "bf16", "false": "fp32"},
    "fp16": {"true": "fp16", "false": "fp32"},
    "training.precision": _FORMATS,
    "training.group_by_length": {"group_by_length": True, "random": False},
    "objective.class_weights": {"true": "balanced", "balanced": "balanced", "false": UNSAID},
    "model.quantization": _QUANTIZED,
    "lora_target_linear": {"true": ["all-linear"], "false": UNSAID},
    "quantization_bit": {"4": _QUANTIZED["true"]},
    "adapter": {"qlora": _QUANTIZED["true"]},
    "report_to": {
        **{name: [name] for name in get_args(TrackerName)},
        "all": [*get_args(TrackerName)],
        "none": [],
    },
}
"""Old value (in lower case) to new one, by old key or by new."""
_OPEN = ("max_steps", "metric_for_best_model", "best_model_metric", "metric", "bf16", "fp16")
"""Old keys of which another value is taken as it is."""


ALIASES = dict(_rows(_RENAMED))
"""Key of an experiment by old key, in lower case, by its last name or with the section before it."""
DEAD_ENDS = dict(_rows(_GONE))
"""Why an old key has no successor, and what serves instead."""


@dataclass(frozen=True)
class Successor:
    """What takes the place of an old key and its value.

    ``key`` is None where there is none, or where the value needs none; ``note`` says what differs, or why there is
    none.
    """

    key: str | None
    value: Any = None
    note: str = ""


def successor(path: Sequence[str], value: Any) -> Successor | None:
    """Return what an old key is now; None when nobody knows the key.

    ``path`` has the sections too that the key stood in.
    """
    names = [part.lower().replace("-", "_").lstrip("_") for part in path]
    ways = [".".join(names[start:]) for start in range(len(names))]
    old = next((each for each in ways if each in ALIASES or each in DEAD_ENDS), None)
    if old is None:
        return None
    if old in DEAD_ENDS:
        return Successor(None, None, DEAD_ENDS[old])
    key = ALIASES[old]
    note, values = _NOTES.get(old, _NOTES.get(key, "")), _VALUES.get(old, _VALUES.get(key, {}))
    if key == "model.architecture" and "For" in str(value):
        return Successor(None, None, f"{key} is what the checkpoint's own configuration says")
    if names[-1] in ("val_set_size", "val_size"):
        return _held_out(value)
    if key == "lora.targets" and isinstance(value, str):
        value = ["all-linear" if value == "all" else value]
    said = value if isinstance(value, list) else [value]
    known = [values[text] for each in said or ["none"] if (text := str(each).lower()) in values]
    if not known:
        if not values or old in _OPEN:
            return Successor(key, value, note)
        if note and old != "adapter":
            note = f"{key}: {note}"
        return Successor(None, None, note or f"{key} knows only {', '.join(values)}")
    if known[0] is UNSAID:
        return Successor(None, None, f"{key} is so by itself")
    if isinstance(known[0], list):
        return Successor(key, [*dict.fromkeys(each for some in known for each in some)], note)
    return Successor(key, known[0], note)


def in_own_words(key: str, value: Any) -> Any:
    """Return the value of one of dure's keys as dure writes it, or :data:`UNSAID`; another one as it is."""
    return value if isinstance(value, list) else _VALUES.get(key, {}).get(str(value).lower(), value)


def _held_out(value: Any) -> Successor:
    """Return the validation table that a share of the training rows, or a number of them, has become."""
    share = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if 0 < share < 1:
        return Successor("data.dev", f"{100 * share:g}%")
    if share == 0:
        return Successor("data.dev", None, "nothing is validated, and nothing selected")
    return Successor(None, None, "data.dev is a file, or a share of the training rows such as 10%")
