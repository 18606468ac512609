"""Run by two processes at a time: trainings of one experiment, of which some run out of memory on one worker.

Arguments: the experiment's YAML and the folder that gets one run for every name in ``RUNS``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from dure.config import load_experiment, load_profile
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.folder import RunFolder
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker

RUNS = {"plain": ("error", ()), "calm": ("retry", ()), "short": ("retry", (4,)), "shrunk": ("shrink", (4,))}
"""Name of a run: its policy, and the passes in which the second worker's memory does not suffice."""


class EveryHalf(torch.nn.Module):
    """A dropout that no chance decides: the two passes of R-Drop lose different parts, everywhere the same."""

    def forward(self, x):
        half = len(x) // 2
        return torch.cat([0.9 * x[:half], 1.2 * x[half:]]) if self.training else x


def train(experiment, folder: Path, *, rank: int, num_workers: int, fails: tuple[int, ...] = ()) -> dict:
    """Train without chance and in fp64, and let memory not suffice in these passes of the second worker."""
    family = load_family(experiment)
    corpus = load_corpus(family, notify=lambda message: None)
    profile = load_profile("cpu").model_copy(update={"num_workers": num_workers})
    model = family.load_model(corpus.tokenizer, profile)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.double().dropout = EveryHalf()
    passes = 0

    def look(module, args, output):
        nonlocal passes
        passes += module.training

        def fail(gradient):
            raise torch.OutOfMemoryError("CUDA out of memory")

        if module.training and rank == 1 and passes in fails:
            output.register_hook(fail)

    model.base_model.encoder.layer[-1].register_forward_hook(look)
    told: list[str] = []
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=profile, folder=RunFolder(folder),
        worker=Worker(rank, num_workers, notify=told.append),
    )  # fmt: skip
    outcome = trainer.train()
    return {"weights": model.state_dict(), "num_oom": outcome["num_oom"], "told": told}


def main() -> None:
    """Train every run as one of the workers, and save how each ended."""
    experiment, folder = load_experiment(sys.argv[1]), Path(sys.argv[2])
    rank = int(os.environ["RANK"])
    for name, (policy, fails) in RUNS.items():
        chosen = experiment.model_copy(
            update={"training": experiment.training.model_copy(update={"on_oom": policy})}
        )
        ended = train(chosen, folder / name, rank=rank, num_workers=2, fails=fails)
        torch.save(ended, folder / name / f"ended_{rank}.pt")


if __name__ == "__main__":
    main()
