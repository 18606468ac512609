"""Training throughput: padding to the limit, dynamic padding, Hugging Face's grouping, a bare sorted loop, and dure.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.throughput [--rows 2000] [--repeats 2] [--ways dure …]

The same T5 (2 layers, width 128), the same rows, batches of 8, limits 512/128, one epoch each, in turn within every
repeat; a figure is the median over the repeats of rows per CPU second. A few hundred rows would mislead: with 160 of
them groups of 8 are so coarse that dure computed 1.12 times fewer positions than Hugging Face's grouping, with 2,000 it
is 1.01 by inputs alone. The bare loop sorts rows by their inputs, shuffles batches, and has neither a trainer's
bookkeeping nor its clipping. Lengths are drawn from the quantiles of
DialogSum under an 8,000-word unigram tokenizer (inputs 170 tokens on average, targets 27). The first three
are the plain ``Seq2SeqTrainer`` with its own collator, dure's is the trainer that ``ModelTrainer`` makes.
The table goes to stderr and the JSON to stdout.
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
from transformers.trainer_pt_utils import LengthGroupedSampler as HuggingFaceSampler

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.data.batching import LengthGroupedSampler, Targets
from dure.modeling.costs import target_cost
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from trainables.summarization import Summarization

BATCH_SIZE, ENCODER_MAX_LEN, DECODER_MAX_LEN, VOCABULARY = 8, 512, 128, 8000
INPUT_QUANTILES = (
    45, 60, 73, 89, 103, 113, 120, 127, 134, 142, 150, 159, 168, 180, 193, 209, 225, 247, 284, 323, 989,
)  # fmt: skip
TARGET_QUANTILES = (6, 11, 13, 15, 17, 18, 19, 21, 22, 23, 25, 26, 27, 29, 31, 33, 35, 37, 42, 50, 166)
WAYS = ("padded to the limit", "dynamic padding", "Hugging Face grouped", "bare sorted loop", "dure")


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
            vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=512, num_layers=2, num_heads=4,
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


def bare_loop(dataset: datasets.Dataset) -> float:
    """Train one epoch over batches of sorted rows and return CPU seconds."""
    t5 = model().train()
    collator = DataCollatorForSeq2Seq(tokenizer(), model=t5)
    optimizer = torch.optim.AdamW(t5.parameters(), lr=5e-5)
    order = np.argsort(dataset["length"][:])
    starts = np.random.default_rng(42).permutation(np.arange(0, len(order), BATCH_SIZE))
    plain = dataset.remove_columns(["length"])
    start = time.process_time()
    for first in starts:
        chosen = [plain[int(row)] for row in order[first : first + BATCH_SIZE]]
        t5(**collator(chosen)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - start


def samples_per_second(way: str, dataset: datasets.Dataset) -> float:
    """Train one epoch and return rows per CPU second of the training loop, saving apart."""
    if way == "bare sorted loop":
        return len(dataset) / bare_loop(dataset)
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(way, dataset, Path(folder))
        made.args.save_strategy = "no"
        start = time.process_time()
        made.train()
        return len(dataset) / (time.process_time() - start)


def positions(dataset: datasets.Dataset) -> dict[str, tuple[int, int]]:
    """Return the positions of inputs and of targets that ways compute in an epoch, padding included."""
    inputs = np.array(dataset["length"][:])
    targets = np.array([len(row) for row in dataset["labels"][:]])
    grouped = HuggingFaceSampler(
        BATCH_SIZE, lengths=inputs.tolist(), generator=torch.Generator().manual_seed(42)
    )
    orders = {
        "Hugging Face grouped": list(grouped),
        "bare sorted loop": np.argsort(inputs).tolist(),
        "dure, by inputs alone": list(LengthGroupedSampler(inputs, BATCH_SIZE, 42)),
        "dure": list(LengthGroupedSampler(inputs, BATCH_SIZE, 42, Targets(targets, target_cost(model())))),
    }
    batches = {
        way: [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
        for way, order in orders.items()
    }
    return {
        way: tuple(
            sum(int(lengths[batch].max()) * len(batch) for batch in each) for lengths in (inputs, targets)
        )
        for way, each in batches.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways in turn and print table and JSON."""
    parser = argparse.ArgumentParser(description="Training throughput of five ways to pad")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS[2:]))
    parser.add_argument("--positions", action="store_true", help="count padded positions, and train nothing")
    options = parser.parse_args(arguments)
    dataset = rows(options.rows)
    if options.positions:
        print(
            json.dumps({"benchmark": "positions", "rows": options.rows, "ways": positions(dataset)}, indent=2)
        )
        return
    speeds: dict[str, list[float]] = {way: [] for way in options.ways}
    for repeat in range(options.repeats):
        for way in options.ways:
            with redirect_stdout(sys.stderr):  # the trainer prints its own figures
                speeds[way].append(samples_per_second(way, dataset))
            print(f"repeat {repeat + 1}: {way}: {speeds[way][-1]:.1f} rows/CPU s", file=sys.stderr)
    load = os.getloadavg()[0]
    table = Table(title=f"Training throughput, {options.rows} rows, batch {BATCH_SIZE}, load {load:.1f}")
    for heading in ("way", "rows/CPU s", "spread", "dure × it"):
        table.add_column(heading)
    results = []
    for way, each in speeds.items():
        ratios = [mine / theirs for mine, theirs in zip(speeds.get("dure", each), each, strict=True)]
        results.append(
            {
                "way": way,
                "rows_per_cpu_second": median(each),
                "spread": max(each) - min(each),
                "dure_times": median(ratios),
            }
        )
        table.add_row(way, f"{median(each):.1f}", f"{max(each) - min(each):.1f}", f"{median(ratios):.2f}")
    Console(stderr=True).print(table)
    print(
        json.dumps({"benchmark": "throughput", "rows": options.rows, "load": load, "ways": results}, indent=2)
    )


if __name__ == "__main__":
    main()
