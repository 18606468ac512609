"""`dure convert` leads an old file over: what it writes loads, and it writes over nothing."""

from __future__ import annotations

import yaml

from .conftest import call

OLD = """
model: {checkpoint: digit82/kobart-summarization}
training:
  per_device_train_batch_size: 8
  num_train_epochs: 4
  optim: adamw_torch
qlora: {use_qlora: true, lora_rank: 64, lora_alpha: 128, target_modules: [q_proj, v_proj]}
"""


def test_an_old_file_becomes_one_that_loads_and_says_what_is_gone(tmp_path):
    (tmp_path / "old.yaml").write_text(OLD)
    told = call("convert", "old.yaml", "-o", "new.yaml")
    assert told.code == 0, told.err
    assert "training.optim: AdamW is the optimizer" in told.out
    shown = call("train", "new.yaml", "--dry-run", "--json")
    assert shown.code == 0, shown.err
    assert shown.value["training"]["batch_size"] == 8
    assert shown.value["training"]["epochs"] == 4
    assert shown.value["lora"]["targets"] == ["q_proj", "v_proj"]
    assert shown.value["model"]["quantization"] == {"type": "nf4", "double": True}
    assert "# training.optim: AdamW" in (tmp_path / "new.yaml").read_text()


def test_what_is_there_is_written_over_only_when_told(tmp_path):
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "new.yaml").write_text("mine: 1\n")
    assert call("convert", "old.yaml", "-o", "new.yaml").code == 2
    assert (tmp_path / "new.yaml").read_text() == "mine: 1\n"
    assert call("convert", "old.yaml", "-o", "new.yaml", "--force", "experiment.name=mine").code == 0
    assert yaml.safe_load((tmp_path / "new.yaml").read_text())["experiment"]["name"] == "mine"


def test_a_metric_that_the_family_lacks_is_replaced_and_told(tmp_path):
    (tmp_path / "old.yaml").write_text(OLD + "metric_for_best_model: bleu\ngreater_is_better: false\n")
    told = call("convert", "old.yaml", "-o", "new.yaml", "--json")
    assert told.code == 0, told.err
    assert any(
        "training.best_metric: eval_rouge_sum with its own direction, since 'eval_bleu'" in note
        for note in told.value["notes"]
    )
    assert call("train", "new.yaml", "--dry-run").code == 0


def test_all_old_keys_of_a_file_are_answered_at_once_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "old.yaml").write_text(OLD)
    told = call("train", "old.yaml", "--dry-run")
    assert told.code == 2
    assert told.err.rstrip().endswith("try: dure convert old.yaml -o NEW.yaml writes it in the keys of dure")
    assert "'training.batch_size', as in training: {batch_size: 8}" in told.err
    (tmp_path / "child.yaml").write_text(
        "extends: transfer_bert\nlearning_rate: 1\ntraining: {num_train_epochs: 3}\n"
    )
    told = call("train", "child.yaml", "--dry-run")
    assert "try: 'training.epochs', as in training: {epochs: 3}" in told.err
    assert "dure convert" not in told.err
