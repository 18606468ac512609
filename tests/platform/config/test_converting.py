"""Old users are led: every key of other systems has its successor, or a reason why there is none."""

from __future__ import annotations

import dataclasses

import pytest
import yaml
from transformers import Seq2SeqTrainingArguments

from dure.config.aliases import ALIASES, DEAD_ENDS, successor
from dure.config.converting import convert, read_old
from dure.config.loading import checked, load_experiment
from dure.config.schema import Experiment
from dure.config.sections import dotted_keys, has_key
from dure.errors import UserError
from dure.family import family_of_old

OWN = {key.rpartition(".")[2] for key in dotted_keys(Experiment)}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)])
def test_every_argument_of_hugging_face_is_answered(name):
    assert name in ALIASES or name in DEAD_ENDS or name in OWN


@pytest.mark.parametrize("name", [*ALIASES, *DEAD_ENDS])
def test_every_successor_is_a_key_of_an_experiment_and_every_dead_end_has_a_reason(name):
    if name in DEAD_ENDS:
        assert DEAD_ENDS[name]
        assert name not in ALIASES
    else:
        assert has_key(Experiment, ALIASES[name].split(".")) or ALIASES[name] == "model.quantization"
    assert name == name.lower()


@pytest.mark.parametrize(
    ("key", "value", "now", "new"),
    [
        ("per_device_train_batch_size", 6, "training.batch_size", 6),
        ("training.per_device_train_batch_size", 6, "training.batch_size", 6),
        ("per-device-train-batch-size", 6, "training.batch_size", 6),
        ("num_train_epochs", 4, "training.epochs", 4),
        ("NUM_EPOCHS", 15, "training.epochs", 15),
        ("N_FOLDS", 5, None, None),
        ("eval_steps", 200, "training.eval_every", 200),
        ("save_steps", 200, "training.eval_every", 200),
        ("eval_strategy", "epoch", "training.eval_every", "epoch"),
        ("logging_steps", 100, "training.log_every", 100),
        ("bf16", True, "training.precision", "bf16"),
        ("fp16", True, "training.precision", "fp16"),
        ("bf16", False, "training.precision", "fp32"),
        ("metric_for_best_model", "eval_rouge_sum", "training.best_metric", "eval_rouge_sum"),
        ("metric_for_best_model", "rougeL", "training.best_metric", "eval_rougeL"),
        ("metric_for_best_model", "f1", "training.best_metric", "eval_macro_f1"),
        ("greater_is_better", False, "training.higher_is_better", False),
        ("lr_scheduler_type", "cosine_with_restarts", "training.scheduler", "cosine_with_restarts"),
        ("lr_scheduler_type", "inverse_sqrt", None, None),
        ("gradient_accumulation", 32, "training.gradient_accumulation_steps", 32),
        ("use_qlora", True, "model.quantization", {"type": "nf4", "double": True}),
        ("use_qlora", False, "model.quantization", None),
        ("qlora.use_unsloth", True, "model.use_unsloth", True),
        ("qlora.lora_rank", 48, "lora.rank", 48),
        ("lora_alpha", 96, "lora.alpha", 96),
        ("lora_dropout", 0.05, "lora.dropout", 0.05),
        ("target_modules", ["q", "v"], "lora.targets", ["q", "v"]),
        ("target_modules", "q", "lora.targets", ["q"]),
        ("generation_max_length", 100, "generation.max_length", 100),
        ("generation_num_beams", 8, "generation.num_beams", 8),
        ("inference.no_repeat_ngram_size", 3, None, None),
        ("patience", 4, "training.early_stopping_patience", 4),
        ("load_best_model_at_end", True, None, None),
        ("report_to", ["wandb", "tensorboard"], "tracking", ["wandb", "tensorboard"]),
        ("report_to", "none", "tracking", []),
        ("report_to", [], "tracking", []),
        ("dataloader_num_workers", 4, "training.num_data_workers", 4),
        ("label_smoothing_factor", 0.1, "objective.label_smoothing", 0.1),
        ("rdrop_alpha", 1.0, "objective.r_drop", 1.0),
        ("ema_decay", 0.999, "training.ema", 0.999),
        ("use_class_weights", True, "objective.class_weights", "balanced"),
        ("optim", "adamw_torch", None, None),
        ("gradient_clipping", 1.0, "training.max_grad_norm", 1.0),
        ("monitor", "val_loss", "training.best_metric", "eval_loss"),
        ("data.val", "dev.csv", "data.dev", "dev.csv"),
        ("training.dropout", 0.1, None, None),
        ("freeze_layers", 6, None, None),
        ("experiment.seeds", 3, None, None),
        ("profile", "m4", None, None),
        ("output_dir", "out", None, None),
    ],
)
def test_an_old_key_and_its_value_become_the_new_ones(key, value, now, new):
    found = successor(key.split("."), value)
    if key == "inference.no_repeat_ngram_size":
        assert found is None  # the key of the generation section itself, found by its name
        return
    assert found is not None
    assert (found.key, found.value) == (now, new)
    if now is None:
        assert found.note


OLD_LAYOUT = """
experiment: {name: 01_mt5_xlsum_ultimate, tags: [mt5]}
wandb: {enabled: true, project: nlp-5, entity: team}
architecture: mt5
model:
  checkpoint: csebuetnlp/mT5_multilingual_XLSum
input_prefix: "dialogue summarization in korean: "
tokenizer: {encoder_max_len: 1024, decoder_max_len: 200}
training:
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 4
  num_train_epochs: 8
  learning_rate: 1.2e-04
  lr_scheduler_type: cosine_with_restarts
  warmup_ratio: 0.02
  weight_decay: 0.0001
  evaluation_strategy: steps
  eval_steps: 100
  save_steps: 100
  logging_steps: 10
  bf16: true
  fp16: false
  metric_for_best_model: eval_rouge_sum
  greater_is_better: true
  early_stopping_patience: 12
  load_best_model_at_end: true
  optim: adamw_torch
generation_num_beams: 10
generation: {max_length: 200, min_length: 20, length_penalty: 0.6, no_repeat_ngram_size: 4}
qlora:
  use_unsloth: true
  use_qlora: true
  lora_rank: 96
  lora_alpha: 192
  lora_dropout: 0.01
  target_modules: [q, k, v, o, wi, wo, lm_head]
  load_in_4bit: true
general: {data_path: ../data/}
"""


def test_an_old_file_becomes_the_experiment_that_it_was():
    converted = convert(yaml.safe_load(OLD_LAYOUT), "file", family_of_old)
    made = checked(Experiment, converted.tree(), {}, "old.yaml")
    ours = load_experiment("mt5_xlsum_ultimate")
    assert made.family == ours.family
    assert made.model.model_copy(update={"quantization": None}) == ours.model.model_copy(
        update={"quantization": None}
    )
    assert (made.model.quantization.type, made.model.quantization.double) == ("nf4", True)
    assert made.generation == ours.generation
    for key in (
        "epochs",
        "batch_size",
        "gradient_accumulation_steps",
        "scheduler",
        "warmup_ratio",
        "weight_decay",
    ):
        assert getattr(made.training, key) == getattr(ours.training, key), key
    for key in ("learning_rate", "eval_every", "early_stopping_patience", "best_metric"):
        assert getattr(made.training, key) == getattr(ours.training, key), key
    assert made.training.precision == "bf16"
    assert (made.lora.rank, made.lora.alpha, made.lora.dropout) == (96, 192, 0.01)
    assert made.tokenizer.input_prefix == "dialogue summarization in korean: "
    assert (made.data.train, made.data.dev, made.data.test) == tuple(
        f"../data/{split}.csv" for split in ("train", "dev", "test")
    )
    notes = "\n".join(converted.notes)
    assert "training.optim: AdamW" in notes
    assert "evaluation_strategy" in notes
    assert "fp16" not in notes  # what is off says nothing beside bf16


def test_flat_arguments_of_a_classifier_become_one():
    old = {
        "model_name_or_path": "monologg/kobert",
        "train_file": "emotion_corpus.csv",
        "max_length": 128,
        "learning_rate": "2e-5",
        "warmup_ratio": 0.1,
        "warmup_steps": 0,
        "class_weight": "balanced",
        "metric_for_best_model": "f1",
        "seed": 42,
        "max_steps": -1,
        "run_name": "kobert emotion!",
    }
    converted = convert(old, "args", family_of_old)
    made = checked(Experiment, converted.tree(), {}, "args.json")
    assert made.family == "trainables.emotion"
    assert made.name == "kobert_emotion_"
    assert made.tokenizer.encoder_max_len == 128
    assert made.training.warmup_ratio == 0.1
    assert made.training.best_metric == "eval_macro_f1"
    assert made.objective.class_weights == "balanced"
    assert made.data.dev is None
    assert made.training.max_steps is None


def test_lora_that_was_switched_off_stays_off():
    old = {"model_name": "t5-small", "qlora": {"use_qlora": False, "use_unsloth": False, "lora_rank": 8}}
    converted = convert(old, "x", family_of_old)
    made = checked(Experiment, converted.tree(), {}, "x")
    assert made.lora is None
    assert made.model.quantization is None
    assert any("switched off" in note for note in converted.notes)


def test_what_many_things_are_called_is_not_taken_for_another_things():
    old = {
        "model_name": "klue/bert-base",
        "optimizer": {"name": "adamw", "learning_rate": 3e-5},
        "lr_schedule": {"name": "cosine", "type": "cosine"},
        "loss": {"type": "cross_entropy", "alpha": 0.5},
        "encoder": {"dropout": 0.1},
        "dropout": 0.1,
        "rank": 0,
        "vocab_size": 32000,
        "dataset": {"name": "nsmc", "train": "a.csv", "header": None},
        "loader": {"train": 16, "test": 32},
    }
    converted = convert(old, "mine", family_of_old)
    made = checked(Experiment, converted.tree(), {}, "x")
    assert (made.name, made.lora, made.model.quantization, made.rehearsal.vocab_size) == (
        "mine",
        None,
        None,
        2000,
    )
    assert (made.training.learning_rate, made.data.train, made.data.test) == (3e-5, "a.csv", None)
    left = {note.partition(":")[0] for note in converted.notes if "left out" in note}
    assert {"optimizer.name", "loss.type", "encoder.dropout", "dropout", "rank", "vocab_size"} <= left


def test_a_section_that_bears_the_name_of_the_thing_says_what_it_is():
    old = {
        "name": "mine",
        "checkpoint": "t5-small",
        "peft": {"rank": 4, "dropout": 0.1},
        "trainer": {"epochs": 2, "LEARNING_RATE": 1e-4},
    }
    made = checked(Experiment, convert(old, "x", family_of_old).tree(), {}, "x")
    assert (made.name, made.model.checkpoint, made.lora.rank, made.lora.dropout) == (
        "mine",
        "t5-small",
        4,
        0.1,
    )
    assert (made.training.epochs, made.training.learning_rate) == (2, 1e-4)


def test_values_of_other_systems_are_led_over_under_keys_that_are_dures_own_too():
    old = {
        "model": {"checkpoint": "t5-small", "revision": None},
        "training": {
            "max_steps": -1,
            "precision": "bfloat16",
            "best_metric": "rougeL",
            "gradient_checkpointing": None,
        },
        "generation": {"num_beams": None, "max_length": 64},
        "data": {"train": "a.csv", "dev": None},
        "wandb": {"enabled": None, "project": "x"},
        "precision": "float32",
    }
    converted = convert(old, "x", family_of_old)
    assert (converted.values["data.dev"], converted.values["training.precision"]) == (None, "bf16")
    made = checked(Experiment, converted.tree(), {}, "x")
    assert (made.training.max_steps, made.training.best_metric) == (None, "eval_rougeL")
    assert (made.generation.num_beams, made.generation.max_length, made.wandb.project) == (1, 64, "x")


def test_dates_of_old_files_are_text(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("model_name: t5-small\nrun_name: 2024-01-31\ntags: [2024-01-31]\nfp16: no\n")
    assert read_old(file) == {
        "model_name": "t5-small",
        "run_name": "2024-01-31",
        "tags": ["2024-01-31"],
        "fp16": False,
    }


def test_no_precision_at_all_is_fp32_as_it_was():
    made = convert({"model_name": "t5-small", "fp16": False}, "x", family_of_old).tree()
    assert made["training"]["precision"] == "fp32"


def test_anchors_and_merge_keys_of_old_files_are_followed(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("base: &base {num_train_epochs: 2}\ntraining:\n  <<: *base\n  eval_steps: 5\n")
    assert read_old(file)["training"] == {"num_train_epochs": 2, "eval_steps": 5}


def test_aliases_that_grow_without_bound_are_refused(tmp_path):
    file = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match="more than 10,000"):
        read_old(file)


def test_values_that_say_what_dure_does_anyway_are_no_keys():
    assert successor(["max_steps"], -1).key is None


def test_a_project_of_wandb_turns_it_on_unless_the_file_says_where_to_report():
    named = {"base_model": "NousResearch/Llama-3.2-1B", "wandb_project": "mine", "evals_per_epoch": 4}
    found = convert(named, "old", family_of_old)
    assert found.values["wandb.enabled"] is True
    assert "evals_per_epoch: training.eval_every: epoch, or a number of steps" in found.notes
    assert "wandb.enabled" not in convert({**named, "report_to": "none"}, "old", family_of_old).values
    assert "wandb.enabled" not in convert({**named, "wandb_project": ""}, "old", family_of_old).values
