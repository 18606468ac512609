"""A miniature Llama on DialogSum: what it learns, and the CPU time of its steps, beside TRL's SFTTrainer.

TRL is no dependency: `pip install --no-deps --target DIR trl`, then
`PYTHONPATH=DIR OMP_NUM_THREADS=1 python -m tests.benchmarks.causal [WAY …]`; without it dure alone is measured.

Every way trains the same random model on the same 2,000 rows, eight a step, at most once over them and without
evaluation, each with the settings it comes with: dure groups rows by length, TRL does not. Times are of the process,
after a first step.
`learning` is the run of a user: it validates by generation and predicts 500 rows.
"""

from __future__ import annotations

import importlib.util
import os
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
from dure.files import read_json_lines
from dure.metrics.rouge import rouge
from dure.runs.folder import RunFolder
from dure.training.run import RunRequest, run
from dure.training.trainer import ModelTrainer
from tests.benchmarks.small_encoder import DATA
from trainables.causal.likelihood import plain

ROWS, BATCH = 2_000, 8
STEPS = ROWS // BATCH
ENOUGH = 45.0
"""CPU seconds after which a way is measured enough; batches come in random order."""


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
        control.should_training_stop = control.should_training_stop or self.seconds > ENOUGH

    def __str__(self) -> str:
        """Say what was measured."""
        rows = BATCH * self.steps / self.seconds
        load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
        return (
            f"{1000 * self.seconds / self.steps:.0f} ms of CPU a step of {BATCH} rows, {rows:.1f} rows a second, "
            f"over {self.steps} steps (load {load})"
        )


def prepared(**task: Any) -> tuple[Any, Any, Any]:
    """Return the family, its rows and a model of random weights, the same every time."""
    family = load_family(experiment(**task), lambda message: None)
    corpus = load_corpus(family, notify=lambda message: None)
    return family, corpus, family.load_model(corpus.tokenizer, load_profile("cpu"))


def of_dure(*, packs: bool) -> Clock:
    """Measure the steps of dure."""
    family, corpus, model = prepared(packing=packs)
    folder = RunFolder(Path(tempfile.mkdtemp()))
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=load_profile("cpu"), folder=folder
    )
    clock = Clock()
    trainer.hf.add_callback(clock)
    trainer.hf.train()
    return clock


def of_trl(*, packs: bool) -> Clock:
    """Measure the steps of TRL on the same rows: as many of them for each step."""
    import trl

    _, corpus, model = prepared()
    base = plain(model)
    vars(base).pop("forward", None)
    table = datasets.Dataset.from_list(
        [
            {
                "input_ids": row["input_ids"],
                "completion_mask": [
                    int(any(begin <= place < end for begin, end in row["learned"]))
                    for place in range(len(row["input_ids"]))
                ],
            }
            for row in corpus.train
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
    return clock


def learning() -> None:
    """Train as a user does, validating by generation, and predict 500 rows."""
    family, *_ = prepared()
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        metrics = run(RunRequest(family.experiment, load_profile("cpu"), Path(folder) / "run")).metrics
        trained = time.process_time()
        rows = list(read_json_lines(RunFolder(Path(folder) / "run").metrics))
        model, tokenizer = family.load_exported(RunFolder(Path(folder) / "run").final_model)
        _, corpus, _ = prepared()
        begun = time.process_time()
        texts = [row["summary"] for row in predict_rows(family, model, tokenizer, corpus.dev)]
    scores = rouge(texts, corpus.dev["reference"][:], tokenizer="default")
    losses = [row["loss"] for row in rows if "loss" in row]
    print(
        f"learning: loss {losses[0]:.2f} to {losses[-1]:.2f} in {STEPS} steps, {trained - begin:.0f} s of CPU with "
        f"validation; {len(texts)} rows predicted in {time.process_time() - begun:.0f} s of CPU: ROUGE-1 "
        f"{scores.rouge1.f1:.3f} (validation {metrics['eval_rouge1']:.3f}, lead {metrics['baseline_rouge1']:.3f})"
    )


WAYS = {
    "dure-packed": lambda: of_dure(packs=True),
    "dure-padded": lambda: of_dure(packs=False),
    "trl-packed": lambda: of_trl(packs=True),
    "trl-padded": lambda: of_trl(packs=False),
}


def main() -> None:
    """Print the CPU time of a step in every way that is asked for, or all, and what is learned."""
    if not (DATA / "dialogsum" / "train.csv").is_file():
        print(f"skipped: {DATA} lacks dialogsum/train.csv", file=sys.stderr)
        return
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*WAYS, "learning"]:
        if name == "learning":
            learning()
        elif name.startswith("dure") or importlib.util.find_spec("trl"):
            print(f"{name}: {WAYS[name]()}", flush=True)


if __name__ == "__main__":
    main()
