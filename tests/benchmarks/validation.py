"""Validation with generated text: dure's loop against ``Seq2SeqTrainer.predict``, loss and ids of the same rows.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.validation [--rows 32] [--repeats 2] [--beams 1 4 8] [--models T5 BART]
        [--endless]

A small T5 and a small BART from random weights, rows with DialogSum's lengths, batches of 8. Random weights never learned
where a text ends, and write the same token again and again: the output row of the token that ends one is made longer,
and repetition costs, so that texts end at many steps, at most at the 60th. With ``--endless`` all of them go on to the 60th,
where nothing can be gained by rows that leave. Metrics are computed by neither. Figures are CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import torch
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

from .table import Row, Spent, hand_over
from .throughput import BATCH_SIZE, VOCABULARY, model, rows, tokenizer

MODELS = ("T5", "BART")
ENDS, LONGEST = 1, 60
_LONGER, _REPEATED = 4.0, 3.0
"""How much longer the row of the token that ends a text is, and what divides the score of a token written before."""


def small_model(kind: str, beams: int, *, ends: bool) -> PreTrainedModel:
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
    made.generation_config.update(num_beams=beams, max_length=LONGEST, eos_token_id=ENDS)
    if ends:
        made.get_output_embeddings().weight.data[ENDS] *= _LONGER
        made.generation_config.repetition_penalty = _REPEATED
    return made.eval()


def spent(way: str, validated: PreTrainedModel, dataset: datasets.Dataset, folder: Path) -> Spent:
    """Validate once and return what that took."""
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
        return Spent.by(lambda: made.hf.predict(made.eval_dataset))
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
    plain = dataset.remove_columns(["length"])
    return Spent.by(lambda: theirs.predict(plain))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both ways in turn, and hand their rows over."""
    parser = argparse.ArgumentParser(description="Validation with generated text")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--endless", action="store_true", help="all texts go on to the last step")
    options = parser.parse_args(arguments)
    dataset = rows(options.rows)
    made = []
    for kind, beams in product(options.models, options.beams):
        found: dict[str, list[Spent]] = {"Seq2SeqTrainer": [], "dure": []}
        for _, way in product(range(options.repeats), found):
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
                validated = small_model(kind, beams, ends=not options.endless)
                found[way].append(spent(way, validated, dataset, Path(folder)))
        endless = ", endless texts" if options.endless else ""
        made.append(Row(f"validate a {kind}, beams {beams}{endless}", found, len(dataset), 2.0))
        print(f"{made[-1].part}: {made[-1].ratio:.2f}", file=sys.stderr)
    hand_over("validation", made)


if __name__ == "__main__":
    main()
