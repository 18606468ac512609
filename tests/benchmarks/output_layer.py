"""What the output layer in chunks saves: peak memory and time of a loss and its gradients.

Each way runs in a process of its own, which gives the peak of its resident memory above what the inputs take.

Usage: OMP_NUM_THREADS=1 python -m tests.benchmarks.output_layer [--tokens 384 --vocabulary 60000 --width 512 --repeats 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import nn

from dure.modeling.objectives import TokenCrossEntropy
from dure.modeling.output_layer import deferred
from tests.benchmarks.table import Row, Spent, hand_over

WAYS = ("whole", "chunked")
HEADS = ("trained", "frozen")


class Head(nn.Module):
    """An output layer alone, as a model with one."""

    def __init__(self, width: int, vocabulary: int, is_trained: bool) -> None:
        super().__init__()
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight.requires_grad_(is_trained)

    def get_output_embeddings(self) -> nn.Module:
        """Return the layer."""
        return self.lm_head

    def forward(self, hidden: torch.Tensor) -> dict[str, Any]:
        """Return the logits."""
        return {"logits": self.lm_head(hidden)}


def measured(way: str, head: str, tokens: int, vocabulary: int, width: int) -> dict[str, float]:
    """Compute a loss and its gradients once and return CPU seconds, MiB of the peak, and the loss.

    A fifth of the tokens is padding, as in DialogSum's summaries sorted by their dialogues.
    """
    torch.manual_seed(0)
    model = Head(width, vocabulary, head == "trained")
    hidden = torch.randn(8, tokens // 8, width, requires_grad=True)
    labels = torch.randint(0, vocabulary, hidden.shape[:2])
    labels[:, -(tokens // 8) // 5 :] = -100
    nn.Linear(8, 8)(torch.randn(8, 8)).sum().backward()  # whatever torch allocates at its first product
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if way == "chunked":
        with deferred(model):
            outputs = model(hidden)
    else:
        outputs = model(hidden)
    loss = TokenCrossEntropy()(outputs, labels)
    loss.backward()
    seconds = time.process_time() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"seconds": seconds, "peak_mib": peak, "loss": float(loss.detach())}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both ways with both heads in turn, and hand their rows over."""
    parser = argparse.ArgumentParser(description="The output layer whole and in chunks")
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--vocabulary", type=int, default=60_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "HEAD"))
    options = parser.parse_args(arguments)
    sizes = (options.tokens, options.vocabulary, options.width)
    if options.one:
        print(json.dumps(measured(*options.one, *sizes)))
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _, head, way in product(range(options.repeats), HEADS, WAYS):
        words = [
            f"--{name}={value}" for name, value in zip(("tokens", "vocabulary", "width"), sizes, strict=True)
        ]
        command = [sys.executable, "-m", "tests.benchmarks.output_layer", *words, "--one", way, head]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.setdefault((way, head), []).append(json.loads(done.stdout))
    rows = []
    for head, (unit, figure) in product(HEADS, (("CPU s", "seconds"), ("peak MiB", "peak_mib"))):
        ways = {
            name: [Spent(each[figure], each["seconds"]) for each in found[way, head]]
            for name, way in (("dure", "chunked"), ("whole", "whole"))
        }
        rows.append(Row(f"output layer, {head}", ways, sizes[0], unit=unit))
    hand_over("output_layer", rows, sizes=sizes)


if __name__ == "__main__":
    main()
