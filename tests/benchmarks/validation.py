"""Validation with generated text: dure's loop against ``Seq2SeqTrainer.predict``, loss and ids of the same rows.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.validation [--rows 32] [--repeats 2] [--beams 1 4 8] [--models T5 BART]

A small T5 and a small BART from random weights, rows with DialogSum's lengths, batches of 8. Random weights never learned
where a text ends: the output row of the token that ends one is made longer, so that texts end at many steps, at most at
the 60th. Metrics are computed by neither. Figures are CPU seconds. The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from trainables.summarization import Summarization

from .throughput import BATCH_SIZE, VOCABULARY, model, rows, tokenizer

MODELS = ("T5", "BART")
ENDS, LONGEST = 1, 60
_LONGER = 2.2


def small_model(kind: str, beams: int) -> PreTrainedModel:
    """Make the model that both ways validate."""
    if kind == "T5":
        made: Any = model()
    else:
        torch.manual_seed(42)
        made = BartForConditionalGeneration(
            BartConfig(
                vocab_size=VOCABULARY, d_model=128, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=512,
                decoder_ffn_dim=512, encoder_attention_heads=4, decoder_attention_heads=4, pad_token_id=0,
                eos_token_id=1, bos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
            )
        )  # fmt: skip
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    made.get_output_embeddings().weight.data[ENDS] *= _LONGER
    made.generation_config.update(num_beams=beams, max_length=LONGEST, eos_token_id=ENDS)
    return made.eval()


def seconds(way: str, kind: str, beams: int, dataset: datasets.Dataset, folder: Path) -> tuple[float, float]:
    """Validate once and return CPU seconds, and the loss."""
    validated = small_model(kind, beams)
    if way == "dure":
        experiment = Experiment.model_validate(
            {
                "family": "trainables.summarization",
                "experiment": {"name": "validation"},
                "model": {"checkpoint": "none"},
                "training": {"epochs": 1, "batch_size": BATCH_SIZE},
                "task": {"rouge_tokenizer": "character"},
            }
        )
        references = dataset.add_column("reference", [""] * len(dataset))
        made = ModelTrainer(
            Summarization(experiment), validated, tokenizer(), dataset, references,
            profile=load_profile("cpu"), folder=RunFolder(folder),
        )  # fmt: skip
        made.hf.compute_metrics = None
        start = time.process_time()
        metrics = made.hf.predict(made.eval_dataset).metrics
        return time.process_time() - start, metrics["test_loss"]
    tokens = tokenizer()
    theirs = Seq2SeqTrainer(
        model=validated,
        args=Seq2SeqTrainingArguments(
            str(folder), per_device_eval_batch_size=BATCH_SIZE, predict_with_generate=True, report_to="none",
            disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
        ),
        data_collator=DataCollatorForSeq2Seq(tokens, model=validated),
        processing_class=tokens,
    )  # fmt: skip
    start = time.process_time()
    loss = theirs.predict(dataset.remove_columns(["length"])).metrics["test_loss"]
    return time.process_time() - start, loss


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both ways in turn, and print table and JSON."""
    parser = argparse.ArgumentParser(description="Validation with generated text")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args(arguments)
    dataset = rows(options.rows)
    results: list[dict[str, Any]] = []
    for kind, beams in ((kind, beams) for kind in options.models for beams in options.beams):
        found: dict[str, list[tuple[float, float]]] = {"Seq2SeqTrainer": [], "dure": []}
        for _ in range(options.repeats):
            for way in found:
                with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
                    found[way].append(seconds(way, kind, beams, dataset, Path(folder)))
        theirs, ours = ([each for each, _ in found[way]] for way in found)
        results.append(
            {
                "model": kind, "beams": beams, "seq2seq_trainer": median(theirs), "dure": median(ours),
                "spread": max(max(theirs) - min(theirs), max(ours) - min(ours)),
                "ratio": median(one / other for one, other in zip(theirs, ours, strict=True)),
                "losses": [found[way][0][1] for way in found],
            }
        )  # fmt: skip
        print(results[-1], file=sys.stderr)
    load = os.getloadavg()[0]
    table = Table(title=f"Validation of {options.rows} rows, CPU seconds, load {load:.1f}")
    for heading in ("model", "beams", "Seq2SeqTrainer", "dure", "spread", "faster"):
        table.add_column(heading)
    for row in results:
        figures = (f"{row[name]:.1f}" for name in ("seq2seq_trainer", "dure", "spread"))
        table.add_row(row["model"], str(row["beams"]), *figures, f"{row['ratio']:.2f}")
    Console(stderr=True).print(table)
    print(
        json.dumps({"benchmark": "validation", "rows": options.rows, "load": load, "ways": results}, indent=2)
    )


if __name__ == "__main__":
    main()
