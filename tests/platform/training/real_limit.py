"""Run by a test: trains with a limit on this process's memory that the whole micro-batch does not fit into.

Argument: folder of the run. Prints the outcome as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from dure.config import load_experiment, load_profile
from dure.family import load_family
from dure.family.corpus import load_corpus
from dure.runs.folder import RunFolder
from dure.training import memory
from dure.training.trainer import ModelTrainer
from dure.training.worker import Worker

WIDTH = 8 * 1024 * 1024
"""Values that a pass holds for every row, 32 MiB in fp32; there are three such tensors at least."""
ROOM = 640 * 1024 * 1024
"""What the process may still take when training begins: enough for 2 rows with ease, and not for 8."""


class Wide(torch.nn.Module):
    """Passes its input on, by way of a tensor that is as wide as a real model's activations."""

    def forward(self, x):
        return x + (x.mean(dim=-1, keepdim=True).repeat(1, WIDTH).sigmoid()).mean(dim=-1, keepdim=True)


def main() -> None:
    """Train, and print how it ended."""
    folder = Path(sys.argv[1])
    family = load_family(load_experiment(str(folder / "experiment.yaml")))
    corpus = load_corpus(family, notify=lambda message: None)
    profile = load_profile("cpu")
    model = family.load_model(corpus.tokenizer, profile)
    model.dropout = Wide()
    told: list[str] = []
    trainer = ModelTrainer(
        family, model, corpus.tokenizer, corpus.train, None, profile=profile, folder=RunFolder(folder),
        worker=Worker(notify=told.append),
    )  # fmt: skip
    memory.release()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))
    outcome = trainer.train()
    print(json.dumps({"num_oom": outcome["num_oom"], "steps": outcome["steps"], "told": told}))


if __name__ == "__main__":
    main()
