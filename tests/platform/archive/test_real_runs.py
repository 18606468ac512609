"""Real tiny models whose difference is known: trained on clean labels, on noisy ones, and on clean ones again."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from dure import compare
from dure.runs.row_scores import read_scores
from dure.training.run import RunRequest, run

pytestmark = pytest.mark.slow

GOOD, BAD = ("좋은", "멋진", "고운", "밝은", "맑은"), ("나쁜", "거친", "낡은", "흐린", "더운")
NOUNS = ("집", "길", "책", "옷", "차", "방", "산", "강")
NOISE = 0.35


def write_table(path, rows, seed, *, noise=0.0):
    """Write texts whose class one of their words tells; of ``noise`` of them the other class stands there."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            is_good = rng.random() < 0.5
            word, noun = rng.choice(GOOD if is_good else BAD), rng.choice(NOUNS)
            label = is_good != (rng.random() < noise)
            # All tables draw from the same texts, or a truth on many rows would be that of other ones.
            writer.writerow(
                [f"{word} {noun} {rng.integers(1000)} 번 {rng.choice(NOUNS)}", "긍정" if label else "부정"]
            )
    return str(path)


@pytest.fixture(scope="module")
def trained(tiny, cpu, tmp_path_factory):
    """Train five seeds of every setting, and five others of two of them on many rows, which tell the truth."""
    folder = tmp_path_factory.mktemp("runs")
    tables = {
        "clean": write_table(folder / "clean.csv", 240, 1),
        "noisy": write_table(folder / "noisy.csv", 240, 1, noise=NOISE),
        "few": write_table(folder / "few.csv", 200, 2),
        "many": write_table(folder / "many.csv", 2000, 3),
    }
    base = tiny("bert", "full").with_(
        {
            "training.learning_rate": 3e-3,
            # Enough that every seed learns clean labels; after 60 steps only some have, and nothing could be told apart.
            "training.epochs": 10,
            "training.max_steps": 120,
            "training.log_every": 20,
            "training.batch_size": 16,
            "data.dev": None,
            "data.on_overlap": "warn",
        }
    )
    base = base.with_({"data.max_train_rows": None, "data.max_dev_rows": None})
    asked = {
        "clean": ("clean", "few", 8, range(1, 6)),
        "noisy": ("noisy", "few", 8, range(1, 6)),
        # Another size of batches to validate with changes no score: an equal setting, by other seeds.
        "again": ("clean", "few", 16, range(6, 11)),
        "clean-truth": ("clean", "many", 8, range(11, 16)),
        "noisy-truth": ("noisy", "many", 8, range(11, 16)),
    }
    for name, (train, test, batch, seeds) in asked.items():
        for seed in seeds:
            changes = {
                "experiment.name": f"{name}.seed_{seed}",
                "experiment.seed": seed,
                "data.train": tables[train],
                "data.test": tables[test],
                "training.eval_batch_size": batch,
            }
            run(RunRequest(base.with_(changes), cpu, folder / name / str(seed)))
    return folder


def test_the_interval_covers_what_label_noise_costs_and_equal_settings_are_a_tie(trained):
    found = compare(*(trained / name for name in ("clean", "noisy", "again")), metric="accuracy")
    assert len(found.groups) == 1
    pairs = {frozenset((pair.a, pair.b)): pair for pair in found.pairs}

    def truth(name):
        runs = [read_scores([trained / name / str(seed) / "predictions.csv"]) for seed in range(11, 16)]
        return np.mean([rows.scores["accuracy"].mean() for rows in runs])

    difference = truth("clean-truth") - truth("noisy-truth")
    assert difference > 0.02
    apart = pairs[frozenset(("clean", "noisy"))]
    sign = 1 if apart.a == "clean" else -1
    low, high = sorted((sign * apart.low, sign * apart.high))
    assert low <= difference <= high
    assert high - low < 0.35  # of accuracies from 0.5 to 1: narrow enough to say something
    assert apart.verdict == ("better" if sign == 1 else "worse")
    assert apart.p_holm is not None
    assert apart.p_holm < 0.05
    assert (apart.num_seeds, apart.num_rows) == (5, 200)
    assert pairs[frozenset(("clean", "again"))].verdict in ("tie", "equal")
    print(difference, (low, high), *found.sentences, sep="\n")
