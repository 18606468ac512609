"""Does parameter crossover beat the baselines on held-out rows? ``python -m tests.benchmarks.crossover``.

The smallest Red Heart learns from dilemmas of which a part has wrong labels, long enough to overfit. Every seed has
data order, weights and noise of its own; the candidates are chosen on the selection rows and compared on the held-out
ones, which took no part in anything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean

import torch

from dure.config import load_experiment, load_profile
from dure.epochs.driver import EMA_FILE, cross_over
from dure.epochs.needed_epochs import NeededEpochs
from dure.modeling.weights import STATE
from dure.runs.epochs import RAW, epochs_of
from dure.runs.folder import UnifiedFolder
from dure.runtime.experiment import train

EMA_DECAY = 0.995
"""An average over about two epochs of a hundred steps."""


def _split_average(folder: Path) -> None:
    """Let the epochs be the weights as they were trained, and the last average of them a baseline of its own."""
    files = list(epochs_of(folder).values())
    for file in files:
        saved = torch.load(file, weights_only=True)
        raw = saved.pop(RAW)
        if file == files[-1]:
            torch.save(saved, folder / EMA_FILE)
        torch.save({**saved, STATE: raw}, file)


def main() -> None:
    """Train, cross over and print what was kept, for every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--evaluations", type=int, default=60, help="models that each search may score")
    arguments = parser.parse_args()
    profile = load_profile("cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in (int(text) for text in arguments.seeds.split(",")):
            experiment = load_experiment(
                "red_heart_tiny",
                [
                    f"experiment.seed={seed}",
                    f"data.fold.seed={seed}",
                    f"training.epochs={arguments.epochs}",
                    f"task.sample_label_noise={arguments.noise}",
                    "objective.r_drop=0",
                    f"training.ema={EMA_DECAY}",
                ],
            )
            path = Path(folder) / str(seed)
            path.mkdir()
            result = train(
                experiment,
                profile=profile,
                path=path,
                listeners=[NeededEpochs({})],
                layout=UnifiedFolder,
            )
            _split_average(UnifiedFolder(path).checkpoints)
            record = cross_over(
                path,
                profile=profile,
                searches=("greedy", "optuna"),
                max_evaluations=arguments.evaluations,
                notify=lambda line: None,
            )
            row = {
                "seed": seed,
                "best_epoch_loss": result.metrics["eval_loss"],
                "kept": record["kept"],
                "winner": record["winner"],
                "is_crossover": record["is_crossover"],
                "is_proven": record["is_proven"],
                "held_out": {
                    entry["name"]: round(entry["held_out"], 4)
                    for entry in record["candidates"]
                    if entry["held_out"] is not None
                },
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    names = [name for name in rows[0]["held_out"] if all(name in row["held_out"] for row in rows)]
    print(
        json.dumps(
            {
                "crossover_kept": sum(row["is_crossover"] for row in rows),
                "proven": sum(row["is_proven"] for row in rows),
                "mean_held_out": {
                    name: round(fmean(row["held_out"][name] for row in rows), 4) for name in names
                },
                "mean_of_winner": round(fmean(row["held_out"][row["winner"]] for row in rows), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
