"""Training throughput: Hugging Face's trainer, bare loops, and dure, on real rows.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.throughput [--rows 2000] [--repeats 2] [--tasks dialogues reviews]
        [--dropout 0.1]

Dialogues: a T5 (2 layers, width 128), 2,000 dialogues of DialogSum under an 8,000-word unigram tokenizer of their own,
batches of 8, limits 512/128, T5's own dropout unless ``--dropout`` says another. Reviews: a BERT (2 layers, width 128), film reviews of nsmc, batches of 32. One epoch each, in
turn within every repeat, of CPU seconds of the training loop. A few hundred rows would mislead: with 160 of them groups
of 8 are so coarse that dure computed 1.12 times fewer positions than Hugging Face's grouping, with 2,000 it is 1.01 by
inputs alone. The peers are ``transformers.Trainer`` with batches as they come and grouped by length, and two loops with
neither a trainer's bookkeeping nor its clipping: one over batches of sorted rows, one over batches of sorted rows whose
padded inputs fill the same budget of tokens, so that there are about as many. ``--positions`` counts positions instead,
over rows with the quantiles of DialogSum's lengths (inputs 170 tokens on average, targets 27).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler as HuggingFaceSampler

from dure.config import load_profile
from dure.config.schema import Experiment
from dure.data.batching import LengthGroupedSampler, Targets
from dure.family import Family, load_family
from dure.family.corpus import load_corpus
from dure.modeling.costs import target_cost
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from tests.benchmarks.small_encoder import DATA, require_data, save_encoder
from tests.benchmarks.small_encoder import experiment as reviews_experiment
from tests.benchmarks.table import Row, Spent, hand_over

BATCH_SIZE, ENCODER_MAX_LEN, DECODER_MAX_LEN, VOCABULARY = 8, 512, 128, 8000
INPUT_QUANTILES = (
    45, 60, 73, 89, 103, 113, 120, 127, 134, 142, 150, 159, 168, 180, 193, 209, 225, 247, 284, 323, 989,
)  # fmt: skip
TARGET_QUANTILES = (6, 11, 13, 15, 17, 18, 19, 21, 22, 23, 25, 26, 27, 29, 31, 33, 35, 37, 42, 50, 166)
DROPOUT = 0.1
"""What T5 drops while it is fine-tuned."""
WAYS = ("Hugging Face default", "Hugging Face grouped", "bare sorted loop", "token-budget loop", "dure")
TASKS = ("dialogues", "reviews")


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


def model(dropout: float = DROPOUT) -> T5ForConditionalGeneration:
    """Make the T5 that all ways train."""
    torch.manual_seed(42)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=512, num_layers=2, num_heads=4,
            decoder_start_token_id=0, dropout_rate=dropout,
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


@dataclass(frozen=True)
class Task:
    """What all ways train."""

    family: Family
    """The family that dure trains it with."""
    model: Callable[[], PreTrainedModel]
    """Makes the model, the same every time."""
    tokenizer: Any
    """Pads."""
    dataset: datasets.Dataset
    """Encoded rows, with ``length``."""
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
    """Makes a batch of rows for the peers."""
    batch_size: int
    """Rows of a batch."""


def dialogues(number: int, dropout: float = DROPOUT) -> Task:
    """Return the summarisation of real dialogues."""
    with (DATA / "dialogsum" / "train.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    texts = {column: [row[column] for row in read] for column in ("dialogue", "summary")}
    words = Tokenizer(models.Unigram())
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    words.train_from_iterator(
        [*texts["dialogue"], *texts["summary"]],
        trainers.UnigramTrainer(
            vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )

    def ids(column: str, limit: int) -> list[list[int]]:
        return [[*each.ids[: limit - 1], 1] for each in words.encode_batch(texts[column][:number])]

    inputs, targets = ids("dialogue", ENCODER_MAX_LEN), ids("summary", DECODER_MAX_LEN)
    dataset = datasets.Dataset.from_dict(
        {"input_ids": inputs, "labels": targets, "length": [len(each) for each in inputs]}
    )
    experiment = Experiment.model_validate(
        {
            "family": "trainables.summarization",
            "experiment": {"name": "throughput"},
            "model": {"checkpoint": "none"},
            "training": {"epochs": 1, "batch_size": BATCH_SIZE, "log_every": 1000},
            "task": {"rouge_tokenizer": "character"},
        }
    )
    collate = DataCollatorForSeq2Seq(tokenizer())
    return Task(load_family(experiment), partial(model, dropout), tokenizer(), dataset, collate, BATCH_SIZE)


def reviews(number: int) -> Task:
    """Return the classification of real film reviews."""
    require_data()
    encoder = save_encoder(Path(tempfile.mkdtemp()) / "encoder", seed=1)
    asked = {"data.max_train_rows": number, "data.max_dev_rows": 100, "training.epochs": 1}
    experiment = reviews_experiment("throughput", encoder, seed=1).with_(asked)
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)

    def made() -> PreTrainedModel:
        torch.manual_seed(42)
        return family.load_model(corpus.tokenizer, load_profile("cpu"))

    batches = family.batches(corpus.tokenizer, made())
    return Task(family, made, corpus.tokenizer, corpus.train, batches.collate, experiment.training.batch_size)


def trainer(way: str, task: Task, folder: Path) -> Any:
    """Make the trainer of one way, ready to train one epoch."""
    if way == "dure":
        return ModelTrainer(
            task.family, task.model(), task.tokenizer, task.dataset, None,
            profile=load_profile("cpu"), folder=RunFolder(folder),
        ).hf  # fmt: skip
    settings: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if "grouped" in way else {}
    return Trainer(
        model=task.model(),
        args=TrainingArguments(
            str(folder), num_train_epochs=1, per_device_train_batch_size=task.batch_size, save_strategy="no",
            report_to="none", disable_tqdm=True, logging_strategy="no", use_cpu=True, seed=42,
            dataloader_pin_memory=False, remove_unused_columns=False, **settings,
        ),
        train_dataset=task.dataset,
        data_collator=lambda rows: task.collate(_without_length(rows)),
        processing_class=task.tokenizer,
    )  # fmt: skip


def _without_length(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "length"} for row in rows]


def cut(lengths: Sequence[int], batch_size: int, *, by_tokens: bool) -> list[list[int]]:
    """Return batches of sorted rows: of a number of rows, or of the padded tokens that such batches hold on average."""
    order = np.argsort(lengths, kind="stable").tolist()
    by_rows = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if not by_tokens:
        return by_rows
    budget = sum(lengths[batch[-1]] * len(batch) for batch in by_rows) / len(by_rows)
    batches: list[list[int]] = [[]]
    for row in order:
        if batches[-1] and lengths[row] * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def bare_loop(task: Task, *, by_tokens: bool) -> Callable[[], None]:
    """Return what trains one epoch over batches of sorted rows, in drawn order."""
    trained = task.model().train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=5e-5, fused=True)  # as the trainers have it
    batches = cut(task.dataset["length"][:], task.batch_size, by_tokens=by_tokens)
    order = np.random.default_rng(42).permutation(len(batches))
    rows = _without_length(task.dataset.to_list())

    def train() -> None:
        for place in order:
            trained(**task.collate([rows[row] for row in batches[place]])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return train


def spent(way: str, task: Task) -> Spent:
    """Train one epoch, saving apart, and return what that took."""
    if way.endswith("loop"):
        return Spent.by(bare_loop(task, by_tokens=way.startswith("token")))
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(way, task, Path(folder))
        made.args.save_strategy = "no"
        return Spent.by(made.train)


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


def measured(name: str, options: argparse.Namespace) -> list[Row]:
    """Measure all ways of a task in turn."""
    task = reviews(options.rows) if name == "reviews" else dialogues(options.rows, options.dropout)
    found: dict[str, list[Spent]] = {way: [] for way in options.ways}
    for repeat in range(options.repeats):
        for way in options.ways:
            with redirect_stdout(sys.stderr):  # the trainer prints its own figures
                found[way].append(spent(way, task))
            print(f"{name}, repeat {repeat + 1}: {way}: {found[way][-1]}", file=sys.stderr)
    trainers_ = {way: each for way, each in found.items() if not way.endswith("loop")}
    loops = {way: each for way, each in found.items() if way.endswith("loop") or way == "dure"}
    asked = {"dialogues": (1.25, 1.05), "reviews": (1.1, None)}[name]
    return [
        Row(f"train on {name}, beside {peers}", ways, len(task.dataset), goal)
        for peers, ways, goal in (("trainers", trainers_, asked[0]), ("bare loops", loops, asked[1]))
        if len(ways) > 1
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways in turn and hand their rows over."""
    parser = argparse.ArgumentParser(description="Training throughput beside trainers and bare loops")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS[1:]))
    parser.add_argument("--dropout", type=float, default=DROPOUT, help="of the T5 of dialogues")
    parser.add_argument("--positions", action="store_true", help="count padded positions, and train nothing")
    options = parser.parse_args(arguments)
    if options.positions:
        counted = positions(rows(options.rows))
        print(json.dumps({"benchmark": "positions", "rows": options.rows, "ways": counted}, indent=2))
        return
    require_data()
    hand_over("throughput", [row for name in options.tasks for row in measured(name, options)])


if __name__ == "__main__":
    main()
