from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from dure.epochs import crossover as room
from dure.epochs.crossover import crossover, save_crossover
from dure.epochs.mixing import EpochWeights
from dure.epochs.module_search import greedy_search, optuna_search
from dure.errors import UserError
from dure.metrics.metric import Metric
from dure.modeling.weights import save_weights

LOSS, HITS = Metric("loss", "min"), Metric("hits", "max")

MODULES = {"a": ("a.",), "b": ("b.",), "c": ("c.",)}
EPOCHS = (2, 4, 6, 8)
WANTED = {"a": 4.0, "b": 2.0, "c": 8.0}
ROWS = np.linspace(-1, 1, 40)


class Net(nn.Module):
    """Three modules of one weight, which is the epoch at which they were saved."""

    def __init__(self, value=0.0):
        super().__init__()
        for name in MODULES:
            setattr(self, name, nn.Linear(1, 1, bias=False))
            nn.init.constant_(getattr(self, name).weight, value)


@pytest.fixture
def weights(tmp_path):
    files: dict[int | str, object] = {epoch: tmp_path / f"epoch_{epoch}.pt" for epoch in EPOCHS}
    for epoch in EPOCHS:
        save_weights(Net(float(epoch)), files[epoch], {"epoch": epoch, "step": epoch})
    files["ema"] = tmp_path / "ema.pt"
    save_weights(Net(4.7), files["ema"], {"epoch": 8, "step": 8})
    return EpochWeights(files, MODULES)


def distance(state, wanted=WANTED):
    return sum((float(state[f"{name}.weight"]) - value) ** 2 for name, value in wanted.items())


def row_losses(state, wanted=WANTED):
    return distance(state, wanted) + ROWS


def run(weights, score=distance, rows=row_losses, *, spots=None, **options):
    settings = {"metric": LOSS, "max_evaluations": 64, **options}
    return crossover(weights, spots or {"a": 4, "b": 4, "c": 8}, score, rows, **settings)


def test_every_candidate_has_the_score_of_its_hand_computation(weights):
    outcome = run(weights)
    scores = {candidate.name: candidate.selection for candidate in outcome.candidates}
    assert scores == pytest.approx(
        {
            "last": 16 + 36,
            "best": 0 + 4 + 16,
            "ema": 0.7**2 + 2.7**2 + 3.3**2,
            "uniform_soup": 1 + 9 + 9,
            "greedy_soup": 1 + 9 + 9,  # 4 and 6 together, since neither 2 nor 8 helps
            "selective": 4,
            "weighted": 0 + 4 + (8 - (8 + 6 / 2) / 1.5) ** 2,
            "interpolated_0.25": 1 + 9,
            "interpolated_0.5": 4 + 16,
            "interpolated_0.75": 9 + 25,
            "search_greedy": 0,
            "search_optuna": 0,
        }
    )
    assert outcome.winner.startswith("search_")
    assert outcome["best"].recipe == {name: {4: 1.0} for name in MODULES}


def test_a_crossover_that_wins_on_held_out_rows_is_kept_with_its_margins(weights):
    outcome = run(weights)
    assert outcome.is_crossover
    assert outcome.is_proven
    assert outcome[outcome.kept].held_out == pytest.approx(0)
    assert outcome["selective"].held_out is None
    assert outcome.margins["last"].value == pytest.approx(52)
    assert "is kept" in outcome.verdict()


@pytest.mark.parametrize("num_rows", [1, 3, 5])
def test_what_all_of_a_few_rows_say_is_not_called_certain(weights, num_rows):
    """Their bootstrap has no row that says otherwise, though as many signs are alike in 1 of 16 tables of chance."""
    outcome = run(weights, rows=lambda state: row_losses(state)[:num_rows])
    assert outcome.is_crossover
    assert all(margin is not None and margin.low > 0 for margin in outcome.margins.values())
    assert not outcome.is_proven
    assert "though not certainly" in outcome.verdict()


def test_a_crossover_that_loses_on_held_out_rows_is_not_kept(weights):
    outcome = run(weights, rows=lambda state: row_losses(state, dict.fromkeys(MODULES, 6.0)))
    assert not outcome.is_crossover
    assert outcome.kept == "ema"
    assert "no crossover is kept" in outcome.verdict()
    assert outcome.as_dict()["modules"]["a"] == {"ema": 1.0}


@pytest.mark.heavy
def test_the_baseline_that_is_kept_is_never_chosen_by_the_rows_that_it_is_reported_on(weights):
    """By the selection rows 'ema' is the best baseline, whichever one the held-out rows would prefer."""
    for liked in EPOCHS:
        outcome = run(
            weights, rows=lambda state, liked=liked: row_losses(state, dict.fromkeys(MODULES, liked))
        )
        assert outcome.kept == "ema"
        baselines = [each for each in outcome.candidates if each.kind == "baseline"]
        assert min(baselines, key=lambda each: each.selection).name == "ema"
    assert "the best baseline by selection" in outcome.verdict()


def test_a_crossover_that_is_no_better_than_a_baseline_is_not_kept(weights):
    outcome = run(weights, rows=lambda state: ROWS)
    assert outcome.kept == "ema"
    assert outcome.margins["last"].value == 0


def test_a_small_win_is_kept_but_not_called_proven(weights):
    rng = np.random.default_rng(0)
    noise = {}

    def noisy(state):
        key = repr([float(tensor) for tensor in state.values()])
        noise.setdefault(key, rng.normal(0, 100, len(ROWS)))
        return distance(state) + noise[key] - noise[key].mean()

    outcome = run(weights, rows=noisy)
    assert outcome.is_crossover
    assert not outcome.is_proven
    assert "not certainly" in outcome.verdict()


def test_higher_is_better_where_it_is_said(weights):
    outcome = run(
        weights,
        score=lambda state: 1 / (1 + distance(state)),
        rows=lambda state: [float(distance(state) < 5)] * 10,
        metric=HITS,
    )
    assert outcome[outcome.winner].selection == 1.0
    assert outcome["best"].recipe["a"] == {4: 1.0}
    assert outcome.is_crossover


def test_an_epoch_that_diverged_is_never_chosen_and_never_written_as_nan(weights, tmp_path):
    save_weights(Net(math.nan), tmp_path / "epoch_8.pt", {"epoch": 8, "step": 8})
    weights = EpochWeights(weights.files, MODULES)
    outcome = run(weights, spots={"a": 4, "b": 4, "c": 6}, best=4)
    assert outcome.margins["last"] is None
    assert outcome.is_proven
    save_crossover(outcome, weights, tmp_path / "final")
    record = json.loads((tmp_path / "final" / "crossover_final.json").read_text())
    assert record["margins"]["last"] is None
    assert record["candidates"][0]["selection"] is None


def test_the_final_model_is_a_plain_state_dict_with_its_record(weights, tmp_path):
    outcome = run(weights)
    path = save_crossover(outcome, weights, tmp_path / "final", about={"split": "test"})
    state = torch.load(path, weights_only=True)
    net = Net()
    net.load_state_dict(state)
    assert [float(net.get_parameter(f"{name}.weight").detach()) for name in MODULES] == [4, 2, 8]
    assert path.stat().st_size < 10_000
    record = json.loads((tmp_path / "final" / "crossover_final.json").read_text())
    assert record["kept"] == outcome.kept
    assert record["modules"] == {"a": {"4": 1.0}, "b": {"2": 1.0}, "c": {"8": 1.0}}
    assert record["files"]["4"] == "epoch_4.pt"
    assert record["split"] == "test"


def test_a_kill_while_the_model_is_written_leaves_the_old_one(weights, tmp_path, monkeypatch):
    outcome = run(weights)
    path = save_crossover(outcome, weights, tmp_path / "final")
    before = path.read_bytes()

    def killed(state, beside):
        beside.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(room.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_crossover(outcome, weights, tmp_path / "final")
    assert path.read_bytes() == before
    assert [each.name for each in (tmp_path / "final").iterdir()] == ["crossover_final.pth"]


def test_a_run_of_one_epoch_keeps_it(tmp_path):
    save_weights(Net(1.0), tmp_path / "epoch_1.pt", {"epoch": 1, "step": 1})
    weights = EpochWeights({1: tmp_path / "epoch_1.pt"}, MODULES)
    outcome = run(weights, spots=dict.fromkeys(MODULES, 1))
    assert outcome.kept == "last"
    assert outcome.num_evaluations == 1


@pytest.mark.parametrize(
    ("spots", "best", "problem"),
    [({"a": 4, "b": 4}, None, "module 'c' has no"), ({"a": 4, "b": 4, "c": 5}, None, "epoch 5"),
     ({"a": 4, "b": 4, "c": 4}, 3, "best epoch is epoch 3")],
)  # fmt: skip
def test_epochs_without_weights_are_named(weights, spots, best, problem):
    with pytest.raises(UserError, match=problem):
        run(weights, spots=spots, best=best)


def test_the_order_of_two_modules_that_only_work_together_is_found_by_a_search_over_both():
    def loss(choice):
        return 0.0 if choice == {"a": 3, "b": 3} else 1.0 + choice["a"] + choice["b"]

    start = {"a": 1, "b": 1}
    assert greedy_search(start, [1, 2, 3], loss, max_evaluations=50) == start
    assert optuna_search(start, [1, 2, 3], loss, max_evaluations=9) == {"a": 3, "b": 3}


@pytest.mark.parametrize("search", [greedy_search, optuna_search])
def test_a_search_begins_at_its_start_and_ends_with_its_budget(search):
    asked = []

    def loss(choice):
        asked.append(dict(choice))
        return math.nan if len(asked) == 2 else 5.0 - len(asked)

    best = search({"a": 1, "b": 2}, list(range(1, 30)), loss, max_evaluations=7)
    assert asked[0] == {"a": 1, "b": 2}
    assert len(asked) == 7
    assert best == asked[-1]
    assert search({"a": 1}, [1], lambda choice: 0.0, max_evaluations=5) == {"a": 1}
