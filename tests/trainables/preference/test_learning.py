"""That preferences are learned by a miniature: its reward accuracy on held-out pairs rises from chance.

As it is done in life: instruction fine-tuning on the right summaries first, and DPO from there. Nine of ten pairs are
reached for persons; outcomes come near, and things stay behind, most where the dialogue has a word with another particle
than the summary, which to the miniature is another token.
"""

from __future__ import annotations

import csv
from dataclasses import asdict

import numpy
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from dure.config import load_experiment, rehearsal_of
from dure.family import load_family
from dure.training.run import RunRequest, run
from trainables.samples.preferences import preference_corpus

COMMON = {
    "lora": None,
    "model.quantization": None,
    "tokenizer.special_tokens": ["#Person1#", "#Person2#", "#Person3#"],
    "task.prompt": "{text}",
    "training.batch_size": 16,
    "training.gradient_accumulation_steps": 1,
    "training.gradient_checkpointing": False,
    "generation.max_length": 8,  # what is written is not looked at
    "wandb.enabled": False,
}
TUNING = COMMON | {
    "data.columns": {"text": "prompt", "target": "chosen"},
    "task.validate": "loss",
    "training.best_metric": "eval_perplexity",
    "training.epochs": 3,
    "training.learning_rate": 8e-5,  # times the rehearsal's scale
    "rehearsal.hidden_size": 64,
    "rehearsal.max_steps": 2200,
    "rehearsal.max_train_rows": 12000,
    "rehearsal.max_encoder_len": 320,
}
PREFERRING = COMMON | {
    "task.beta": 0.5,  # pairs that are far apart count for less than with 0.1
    "training.epochs": 1,
    "training.learning_rate": 1e-4,  # three times that undoes what was tuned
    "training.eval_every": 375,
    "training.eval_batch_size": 32,
}
ACCURACY = {"person": 0.9, "thing": 0.6, "outcome": 0.8}
"""Below what each kind reached (0.98, 0.69 and 0.885); 200 pairs of one are at 0.6 by chance once in 300 times."""


@pytest.fixture(scope="module")
def corpus():
    return preference_corpus(num_train=12000, num_dev=240, num_test=600)


@pytest.fixture(scope="module")
def tables(corpus, tmp_path_factory):
    """Tables of pairs; half of the training rows are compared as well."""
    folder, files = tmp_path_factory.mktemp("pairs"), {}
    for name, rows in (corpus | {"compared": corpus["train"][:6000]}).items():
        files[name] = str(folder / f"{name}.csv")
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("id", "prompt", "chosen", "rejected"), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    return files


def ahead(folder, family, rows) -> numpy.ndarray:
    """Return log p of the right summary less that of the other, by the plain logits of a saved model."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    _, tokenizer = family.load_exported(folder)
    texts = {
        "text": [row.prompt for row in rows],
        "chosen": [row.chosen for row in rows],
        "rejected": [row.rejected for row in rows],
    }
    encoded = family.encode(texts, tokenizer)
    sides = []
    for name in ("input_ids", "rejected_ids"):
        found = []
        for ids, begin in zip(encoded[name], encoded["prompt_length"], strict=True):
            with torch.no_grad():
                log_p = functional.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
            found.append(float(log_p[range(begin - 1, len(ids) - 1), ids[begin:]].sum()))
        sides.append(numpy.array(found))
    return sides[0] - sides[1]


@pytest.mark.slow
def test_reward_accuracy_rises_from_chance_on_held_out_pairs_of_every_kind(
    corpus, tables, cpu, tmp_path
) -> None:
    held_out = {row.prompt for row in corpus["test"]} | {row.chosen for row in corpus["test"]}
    assert not held_out & {text for row in corpus["train"] for text in (row.prompt, row.chosen)}
    named = {"data.dev": tables["dev"], "data.test": tables["test"]}
    tuned = load_experiment("causal_qwen").with_(named | {"data.train": tables["train"]} | TUNING)
    run(RunRequest(rehearsal_of(tuned), cpu, tmp_path / "tuned"))
    preferring = load_experiment("preference_qwen").with_(
        named
        | {"data.train": tables["compared"], "model.checkpoint": str(tmp_path / "tuned" / "final_model")}
        | PREFERRING
    )
    metrics = run(RunRequest(preferring, cpu, tmp_path / "preferring")).metrics
    family = load_family(preferring.with_({"task.method": "simpo"}))
    before, after = (
        ahead(tmp_path / name / "final_model", family, corpus["test"]) for name in ("tuned", "preferring")
    )
    reward = after - before
    assert metrics["untrained_loss"] == pytest.approx(numpy.log(2), abs=1e-3)
    assert metrics["baseline_reward_accuracy"] == 0.5
    assert metrics["test_reward_accuracy"] == pytest.approx(float(numpy.mean(reward > 0)), abs=0.005)
    for kind, least in ACCURACY.items():
        is_kind = numpy.array([row.wrong == kind for row in corpus["test"]])
        likelier, better = (float(numpy.mean(values[is_kind] > 0)) for values in (before, reward))
        print(f"{kind}: chance 0.5, {likelier:.3f} likelier before, {better:.3f} of higher reward after")
        assert better >= least, kind
