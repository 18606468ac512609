"""Files of tools that fine-tune decoder-only models are led over: family, quantisation, length, adapters, held-out rows."""

from __future__ import annotations

import pytest
import yaml

from dure.config.converting import convert
from dure.config.loading import checked
from dure.config.schema import Experiment
from dure.family import family_of_old

AXOLOTL = """
base_model: Qwen/Qwen2.5-0.5B
model_type: AutoModelForCausalLM
load_in_8bit: false
load_in_4bit: true
datasets: [{path: rows.jsonl, type: chat_template}]
val_set_size: 0.05
adapter: qlora
sequence_len: 2048
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_target_linear: true
micro_batch_size: 2
optimizer: paged_adamw_32bit
train_on_inputs: false
bf16: auto
flash_attention: true
warmup_steps: 10
evals_per_epoch: 1
trust_remote_code: true
"""
LLAMA_FACTORY = """
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
quantization_bit: 4
stage: sft
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: rows
template: llama3
cutoff_len: 1024
max_samples: 1000
val_size: 0.1
plot_loss: true
"""


def converted(text: str):
    result = convert(yaml.safe_load(text), "file", family_of_old)
    assert [note for note in result.notes if "unknown to dure" in note] == []
    return checked(Experiment, result.tree(), {}, "old.yaml"), result


@pytest.mark.parametrize(
    ("text", "length", "held_out", "rank"), [(AXOLOTL, 2048, "5%", 32), (LLAMA_FACTORY, 1024, "10%", 8)]
)
def test_an_instruction_file_becomes_the_fine_tuning_that_it_was(text, length, held_out, rank):
    made, _ = converted(text)
    assert made.family == "trainables.causal"
    assert made.model.architecture is None
    assert (made.model.quantization.type, made.model.quantization.double) == ("nf4", True)
    assert made.tokenizer.encoder_max_len == length
    assert (made.lora.rank, made.lora.targets) == (rank, ("all-linear",))
    assert made.data.dev == held_out


@pytest.mark.parametrize(
    ("old", "new", "family"),
    [
        ("stage: sft", "stage: dpo", "trainables.preference"),
        ("finetuning_type: lora", "finetuning_type: full", "trainables.causal"),
        ("val_size: 0.1", "val_size: 0", "trainables.causal"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "google/mt5-base", "trainables.summarization"),
    ],
)
def test_one_word_of_such_a_file_decides(old, new, family):
    made, result = converted(LLAMA_FACTORY.replace("quantization_bit: 4\n", "").replace(old, new))
    assert made.family == family
    assert (made.lora is None) == ("full" in new)
    assert (made.data.dev is None) == (new == "val_size: 0")
    if "mt5" in new:
        assert made.lora.targets == ("all-linear",)
        assert not any("names no layers" in note for note in result.notes)
