"""What the optimised emotion settings gain on the unbalanced sample: ``python -m tests.benchmarks.emotion``.

Both experiments are rehearsed for the same number of epochs with the same seeds; the figures are those of the test
rows, which no one selects on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import ttest_rel

from dure.config import load_experiment, load_profile, rehearsal_of
from dure.training.run import RunRequest, run

OPTIMISED, BASELINE = "kobert_emotion", "kobert_emotion_baseline"
STEPS = {OPTIMISED: 120, BASELINE: 240}
"""Optimiser steps of 64 and of 32 rows: the same rows, and so the same epochs."""


def main() -> None:
    """Train both with every seed, and print each pair and the paired difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    figures: dict[str, list[tuple[float, float]]] = {OPTIMISED: [], BASELINE: []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, arguments.seeds + 1):
            for name, steps in STEPS.items():
                experiment = rehearsal_of(
                    load_experiment(
                        name,
                        [
                            f"experiment.seed={seed}",
                            f"rehearsal.max_steps={steps}",
                            "training.num_data_workers=0",
                        ],
                    )
                )
                result = run(RunRequest(experiment, load_profile("cpu"), Path(folder) / f"{name}-{seed}"))
                figures[name].append(
                    (float(result.metrics["test_macro_f1"]), float(result.metrics["test_accuracy"]))
                )
            print(seed, {name: [f"{figure:.3f}" for figure in found[-1]] for name, found in figures.items()})
    summary = {"seeds": arguments.seeds}
    for place, metric in enumerate(("macro_f1", "accuracy")):
        optimised, baseline = ([pair[place] for pair in figures[name]] for name in (OPTIMISED, BASELINE))
        differences = [a - b for a, b in zip(optimised, baseline, strict=True)]
        summary[metric] = {
            OPTIMISED: round(fmean(optimised), 4),
            BASELINE: round(fmean(baseline), 4),
            "difference": round(fmean(differences), 4),
            "std": round(stdev(differences), 4),
            "p": round(float(ttest_rel(optimised, baseline).pvalue), 4),
            "better_in": sum(difference > 0 for difference in differences),
        }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
