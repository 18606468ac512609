"""Run by two processes at a time: one training undisturbed, and the same stopped between two records and resumed.

Arguments: the experiment's YAML, and the folder that gets the runs ``whole`` and ``cut``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from dure.config import load_experiment, load_profile
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.folder import RunFolder
from dure.signals import STOP_FILE
from dure.training.trainer import ModelTrainer
from dure.training.worker import StopRequest, StopRequested, Worker


class Asking(TrainerCallback):
    """Asks for a stop at a step, as seen by the main worker only."""

    def __init__(self, file: Path, step: int | None) -> None:
        self.file, self.step = file, step

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """Leave the request, as a driver would while the step is computed."""
        if self.step == state.global_step + 1:
            self.file.touch()


def train(experiment, folder: Path, *, rank: int, num_workers: int, asks_at: int | None = None) -> int:
    """Train or continue, with chance, and return the step of the stop, or that of the end."""
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    profile = load_profile("cpu").model_copy(update={"num_workers": num_workers})
    model = family.load_model(corpus.tokenizer, profile)
    file = folder / STOP_FILE
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, corpus.dev, profile=profile, folder=RunFolder(folder),
        worker=Worker(rank, num_workers, StopRequest(file, is_main=rank == 0)),
    )  # fmt: skip
    if rank == 0:
        trainer.hf.add_callback(Asking(file, asks_at))
    try:
        return int(trainer.train(resume=True)["steps"])
    except StopRequested as stop:
        return stop.step


def main() -> None:
    """Train all runs as one of the workers, and save where each session ended."""
    experiment, folder = load_experiment(sys.argv[1]), Path(sys.argv[2])
    rank = int(os.environ["RANK"])
    ended = []
    for name, asks_at in (("whole", None), ("cut", 4), ("cut", None)):
        ended.append(train(experiment, folder / name, rank=rank, num_workers=2, asks_at=asks_at))
        torch.distributed.barrier()
        (folder / name / STOP_FILE).unlink(missing_ok=True)
        torch.distributed.barrier()
    torch.save(ended, folder / f"ended_{rank}.pt")


if __name__ == "__main__":
    main()
