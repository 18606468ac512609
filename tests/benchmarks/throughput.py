"""Training throughput: padding to the limit, dynamic padding, Hugging Face's grouping, and dure.

    python -m tests.benchmarks.throughput [--rows 240] [--repeats 3]

The same T5 (4 layers, width 256), the same rows, batches of 8, limits 512/128, one epoch each, in turn
within every repeat; a figure is the median over the repeats. Lengths are drawn from the quantiles of
DialogSum under an 8,000-word unigram tokenizer (inputs 170 tokens on average, targets 27). The first three
are the plain ``Seq2SeqTrainer`` with its own collator, dure's is the trainer that ``ModelTrainer`` makes.
The table goes to stderr and the JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from trainables.summarization import Summarization

BATCH_SIZE, ENCODER_MAX_LEN, DECODER_MAX_LEN, VOCABULARY = 8, 512, 128, 8000
INPUT_QUANTILES = (
    45, 60, 73, 89, 103, 113, 120, 127, 134, 142, 150, 159, 168, 180, 193, 209, 225, 247, 284, 323, 989,
)  # fmt: skip
TARGET_QUANTILES = (6, 11, 13, 15, 17, 18, 19, 21, 22, 23, 25, 26, 27, 29, 31, 33, 35, 37, 42, 50, 166)
WAYS = ("padded to the limit", "dynamic padding", "Hugging Face grouped", "dure")


def rows(number: int, seed: int = 42) -> datasets.Dataset:
    """Draw encoded rows with DialogSum's lengths; targets go with inputs, as they do there."""
    random = np.random.default_rng(seed)
    place = random.uniform(size=number)
    grid = np.linspace(0, 1, len(INPUT_QUANTILES))
    inputs = np.interp(place, grid, INPUT_QUANTILES).astype(int).clip(max=ENCODER_MAX_LEN)
    noisy = (place + random.normal(0, 0.2, number)).clip(0, 1)
    targets = np.interp(noisy, grid, TARGET_QUANTILES).astype(int).clip(max=DECODER_MAX_LEN)
    return datasets.Dataset.from_dict(
        {
            "input_ids": [random.integers(3, VOCABULARY, length).tolist() for length in inputs],
            "labels": [random.integers(3, VOCABULARY, length).tolist() for length in targets],
            "length": inputs.tolist(),
        }
    )


def model() -> T5ForConditionalGeneration:
    """Make the T5 that all ways train."""
    torch.manual_seed(42)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=256, d_kv=64, d_ff=1024, num_layers=4, num_heads=4,
            decoder_start_token_id=0, dropout_rate=0.0,
        )
    )  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer for padding only."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def trainer(way: str, dataset: datasets.Dataset, folder: Path) -> Any:
    """Make the trainer of one way, ready to train one epoch."""
    if way == "dure":
        experiment = Experiment.model_validate(
            {
                "family": "trainables.summarization",
                "experiment": {"name": "throughput"},
                "model": {"checkpoint": "none"},
                "training": {"epochs": 1, "batch_size": BATCH_SIZE, "log_every": 1000},
                "task": {"rouge_tokenizer": "character"},
            }
        )
        return ModelTrainer(
            Summarization(experiment),
            model(),
            tokenizer(),
            dataset,
            None,
            profile=load_profile("cpu"),
            folder=RunFolder(folder),
        ).hf
    t5, tokens = model(), tokenizer()
    settings: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if "grouped" in way else {}
    collator = _padded_to_the_limit if "limit" in way else DataCollatorForSeq2Seq(tokens, model=t5)
    return Seq2SeqTrainer(
        model=t5,
        args=Seq2SeqTrainingArguments(
            str(folder), num_train_epochs=1, per_device_train_batch_size=BATCH_SIZE, save_strategy="no",
            report_to="none", disable_tqdm=True, logging_strategy="no", use_cpu=True, seed=42,
            dataloader_pin_memory=False, **settings,
        ),
        train_dataset=dataset,
        data_collator=collator,
        processing_class=tokens,
    )  # fmt: skip


def _padded_to_the_limit(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad inputs and labels each to its own limit, as the systems before dure did at tokenisation."""

    def filled(row: list[int], value: int, limit: int) -> list[int]:
        return row + [value] * (limit - len(row))

    return {
        "input_ids": torch.tensor([filled(row["input_ids"], 0, ENCODER_MAX_LEN) for row in batch]),
        "attention_mask": torch.tensor(
            [filled([1] * len(row["input_ids"]), 0, ENCODER_MAX_LEN) for row in batch]
        ),
        "labels": torch.tensor([filled(row["labels"], -100, DECODER_MAX_LEN) for row in batch]),
    }


def samples_per_second(way: str, dataset: datasets.Dataset) -> float:
    """Train one epoch and return rows per second of the training loop, saving apart."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(way, dataset, Path(folder))
        made.args.save_strategy = "no"
        start = time.perf_counter()
        made.train()
        return len(dataset) / (time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways in turn and print table and JSON."""
    parser = argparse.ArgumentParser(description="Training throughput of four ways to pad")
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    dataset = rows(options.rows)
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats):
        for way in WAYS:
            with redirect_stdout(sys.stderr):  # the trainer prints its own figures
                speeds[way].append(samples_per_second(way, dataset))
            print(f"repeat {repeat + 1}: {way}: {speeds[way][-1]:.1f} samples/s", file=sys.stderr)
    table = Table(title=f"Training throughput, {options.rows} rows, batch {BATCH_SIZE}")
    for heading in ("way", "samples/s", "× padded to the limit", "× Hugging Face grouped"):
        table.add_column(heading)
    results = []
    for way in WAYS:
        ratios = {
            name: median(mine / theirs for mine, theirs in zip(speeds[way], speeds[other], strict=True))
            for name, other in (("ratio_to_limit", WAYS[0]), ("ratio_to_grouped", WAYS[2]))
        }
        results.append({"way": way, "samples_per_second": median(speeds[way]), **ratios})
        table.add_row(way, f"{median(speeds[way]):.1f}", *(f"{ratio:.2f}" for ratio in ratios.values()))
    Console(stderr=True).print(table)
    print(json.dumps({"benchmark": "throughput", "rows": options.rows, "ways": results}, indent=2))


if __name__ == "__main__":
    main()
