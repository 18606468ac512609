"""A miniature Llama on DialogSum: what it learns, and the CPU time of its steps, beside TRL's SFTTrainer.

TRL is no dependency: `pip install --no-deps --target DIR trl`, then
`PYTHONPATH=DIR python -m tests.benchmarks.causal`; without it dure alone is measured.

Both train the same random model on the same rows, in batches of 8, without evaluation, for as many passes over them.
Times are of one thread of the process, after a first step.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import TrainerCallback

from dure.config import load_profile, rehearsal_of
from dure.config.schema import Experiment
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.family.predicting import predict_rows
from dure.metrics.rouge import rouge
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from tests.benchmarks.small_encoder import DATA
from trainables.causal.likelihood import plain

ROWS, BATCH, STEPS = 160, 8, 20


def experiment(steps: int = STEPS, **task: Any) -> Experiment:
    """Return the experiment: four layers, 128 wide, a tokenizer of 4,000 pieces."""
    values = {
        "family": "trainables.causal",
        "experiment": {"name": "dialogsum"},
        "model": {"checkpoint": "scratch", "architecture": "llama"},
        "data": {
            **{split: str(DATA / "dialogsum" / f"{split}.csv") for split in ("train", "dev")},
            "max_train_rows": 2_000,
            "max_dev_rows": 500,
        },
        "tokenizer": {"encoder_max_len": 384, "decoder_max_len": 96},
        "training": {
            "batch_size": BATCH,
            "learning_rate": 2e-3,
            "epochs": 9,
            "max_steps": steps,
            "eval_every": steps,
            "evaluate_untrained": False,
            "early_stopping_patience": None,
        },
        "generation": {"max_length": 48},
        "task": {"rouge_tokenizer": "default", "prompt": "{text}\nTL;DR:", **task},
        "rehearsal": {
            "hidden_size": 128,
            "num_layers": 4,
            "vocab_size": 4000,
            "max_steps": steps,
            "max_train_rows": 2_000,
            "max_dev_rows": 500,
            "max_encoder_len": 384,
            "max_decoder_len": 96,
            "num_evaluations": 1,
            "learning_rate_scale": 1.0,
        },
    }
    made = rehearsal_of(Experiment.model_validate(values))
    return made.with_({"training.evaluate_untrained": False})


class Clock(TrainerCallback):
    """Measures the CPU time of all steps but the first."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time after the first step, and after each one since."""
        now = time.process_time()
        self.begin = now if state.global_step == 1 else self.begin
        self.seconds, self.steps = now - self.begin, state.global_step - 1


def of_dure(**task: Any) -> tuple[float, Any, Any, Any, Any]:
    """Return the CPU seconds of a step of dure, and what was trained."""
    family = load_family(experiment(**task), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    model = family.load_model(corpus.tokenizer, load_profile("cpu"))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = corpus.train.select(range(ROWS))
    folder = RunFolder(Path(tempfile.mkdtemp()))
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, rows, None, profile=load_profile("cpu"), folder=folder
    )
    clock = Clock()
    trainer.hf.add_callback(clock)
    trainer.hf.train()
    return clock.seconds / clock.steps, family, corpus, model, weights


def of_trl(corpus: Any, model: Any, weights: Any, *, packs: bool) -> float:
    """Return the CPU seconds of a step of TRL on the same rows: as many of them for each step."""
    import trl

    base = plain(model)
    vars(base).pop("forward", None)
    base.load_state_dict(weights)
    rows = corpus.train.select(range(ROWS))
    table = datasets.Dataset.from_list(
        [
            {
                "input_ids": row["input_ids"],
                "completion_mask": [
                    int(any(begin <= place < end for begin, end in row["learned"]))
                    for place in range(len(row["input_ids"]))
                ],
            }
            for row in rows
        ]
    )
    longest = max(map(len, table["input_ids"]))
    # A batch of packs has about as many tokens as one of rows.
    mean = sum(map(len, table["input_ids"])) / len(table)
    arguments = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=1 if packs else BATCH,
        max_length=max(longest, round(BATCH * mean)) if packs else longest,
        max_steps=STEPS,
        learning_rate=2e-3,
        packing=packs,
        completion_only_loss=True,
        save_strategy="no",
    )
    trainer = trl.SFTTrainer(
        base,
        args=arguments,
        train_dataset=table,
        processing_class=corpus.tokenizer,
        callbacks=[clock := Clock()],
    )
    trainer.train()
    return clock.seconds / clock.steps


def main() -> None:
    """Print CPU time by step, and then what a longer training learns."""
    if not (DATA / "dialogsum" / "train.csv").is_file():
        print(f"skipped: {DATA} lacks dialogsum/train.csv", file=sys.stderr)
        return
    torch.set_num_threads(1)
    found = {}
    found["dure, packed"], family, corpus, model, weights = of_dure()
    found["dure, padded"], *_ = of_dure(packing=False)
    if importlib.util.find_spec("trl"):
        for packs in (False, True):
            name = f"TRL, {'packed' if packs else 'padded'}"
            found[name] = of_trl(corpus, model, weights, packs=packs)
    for name, seconds in found.items():
        print(f"{name}: {seconds * 1000:.0f} ms of CPU for each step of {BATCH} rows", flush=True)
    _, family, corpus, model, _ = of_dure(steps=int(sys.argv[1]) if len(sys.argv) > 1 else STEPS)
    started = time.process_time()
    texts = [row["summary"] for row in predict_rows(family, model, corpus.tokenizer, corpus.dev)]
    scores = rouge(texts, corpus.dev["reference"][:], tokenizer="default")
    lead = family.baseline(corpus.tokenizer, corpus.train, corpus.dev)
    print(
        f"{len(texts)} rows predicted in {time.process_time() - started:.0f} s of CPU: "
        f"ROUGE-1 {scores.rouge1.f1:.3f} (lead {lead['eval_rouge1']:.3f})"
    )


if __name__ == "__main__":
    main()
