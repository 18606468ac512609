"""What a run will take is foretold with what would fit in its place."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dure.config import load_experiment, load_profile
from dure.config.rehearsal import rehearsal_of
from dure.family import load_family
from dure.preflight.foreseeing import foresee, what_fits
from dure.studies.batch.plan import BatchStudy
from dure.studies.unified.plan import UnifiedStudy


@pytest.fixture(scope="module")
def foreseen():
    """A tiny classifier and its forecast."""
    changes = {"rehearsal.max_train_rows": 64, "rehearsal.max_steps": 6, "training.batch_size": 16}
    experiment = rehearsal_of(load_experiment("transfer_bert").with_(changes))
    return foresee(load_family(experiment), load_profile("cpu"))


def test_a_smaller_batch_that_keeps_the_effective_one_is_offered_where_it_fits(foreseen):
    profile, most = load_profile("cpu"), foreseen.forecast.memory[1]
    (words, *_) = what_fits(foreseen, profile, most - 1)
    assert words.startswith(("training.gradient_checkpointing=true", "training.batch_size=8"))
    assert what_fits(foreseen, profile, 1) == []


def test_fewer_rows_of_a_validation_are_offered_where_the_text_that_it_writes_takes_most():
    changes = {"training.eval_batch_size": 512, "task.rouge_tokenizer": "default", "model.quantization": None}
    few = {"rehearsal.max_train_rows": 32, "rehearsal.num_layers": 1}
    experiment = rehearsal_of(load_experiment("causal_qwen").with_(changes | few))
    profile = load_profile("cpu")
    there = foresee(load_family(experiment), profile)
    parts = there.forecast.parts
    step = parts["gradients"] + parts["activations"]
    assert parts["generation"] > step
    (words, *_) = what_fits(there, profile, there.forecast.memory[1] - (parts["generation"] - step) // 2)
    assert words.startswith("training.eval_batch_size=")
    fewer = int(words.partition("=")[2])
    assert parts["generation"] * fewer / 512 <= step


def test_the_copy_that_a_checkpoint_is_written_from_is_in_the_memory_that_is_forecast(foreseen):
    found = foreseen.forecast
    parts = found.parts
    assert parts["checkpoint"] == parts["gradients"] + parts["moments"] > 0
    stays = sum(parts[name] for name in ("weights", "moments", "checkpoint"))
    step = parts["gradients"] + parts["activations"]
    # Of a byte of a step the heap takes up to 2.5 where lengths differ: python -m tests.benchmarks.process_memory
    assert found.memory[1] == int(stays + 2.5 * step) + parts["libraries"]
    assert found.memory[0] < found.memory[1] - parts["checkpoint"]


def test_gradients_that_are_too_large_for_the_heap_leave_no_gaps_in_it(foreseen, monkeypatch):
    monkeypatch.setattr("dure.training.forecasting._MAPPED", 0)
    found = foresee(foreseen.family, load_profile("cpu")).forecast
    parts = found.parts
    stays = sum(parts[name] for name in ("weights", "moments", "checkpoint", "gradients"))
    assert found.memory[1] == int(stays + 2.5 * parts["activations"]) + parts["libraries"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the card is here")
def test_a_card_that_is_not_here_is_forecast_by_its_profile(foreseen):
    found = foresee(foreseen.family, load_profile("rtx2070s")).forecast
    assert "unproven on CUDA" in found.sentence
    assert found.pace == "by the peak of profile rtx2070s"
    assert found.parts["checkpoint"] == 0  # its copy lies in the memory of the host


@pytest.mark.skipif(torch.cuda.is_available(), reason="the card is here")
def test_a_miniature_in_4_bits_is_forecast_for_a_card_that_is_not_here():
    few = {"rehearsal.max_train_rows": 32, "rehearsal.num_layers": 1}
    experiment = rehearsal_of(load_experiment("kobart_baseline").with_(few))
    assert experiment.model.quantization is not None
    found = foresee(load_family(experiment), load_profile("rtx3090")).forecast
    assert 0 < found.parts["weights"] < 8 * 1024**2


@pytest.mark.slow
def test_a_card_that_is_too_small_names_the_profile_that_fits():
    plain = ["training.ema=null", "data.max_train_rows=40"]
    family = load_family(load_experiment("red_heart_730m", plain))
    small, offload = load_profile("rtx2070s"), load_profile("rtx2070s_offload")
    free = small.memory_mb * 1024**2
    there = foresee(family, small)
    assert there.forecast.memory[0] > free
    assert "unproven on CUDA" in there.forecast.sentence
    fits = what_fits(there, small, free)
    with_offload = foresee(family, offload).forecast
    # Weights stay on the card, gradients and moments do not.
    assert with_offload.parts["moments"] == with_offload.parts["gradients"] == 0
    assert with_offload.memory[0] <= free
    assert any(words.startswith("--profile rtx2070s_offload") for words in fits)


@pytest.mark.parametrize(
    ("study", "times"),
    [
        # Five rates for two epochs each before four epochs; without a sweep the training alone.
        (UnifiedStudy(experiment="red_heart_tiny", sweep_points=5, sweep_epochs=2), 1 + 5 * 2 / 4),
        (UnifiedStudy(experiment="red_heart_tiny", sweep=False), 1.0),
        (BatchStudy(experiments=("red_heart_tiny",), seeds=3), 3.0),
        (BatchStudy(experiments=("red_heart_tiny",)), 1.0),
    ],
)
def test_a_study_is_foretold_by_all_that_it_trains(study, times):
    experiment = load_experiment("red_heart_tiny", ["training.epochs=4"])
    assert study.num_trainings(experiment) == (times, times)


def test_what_scores_texts_is_in_the_memory_that_is_forecast():
    program = (
        "from dure.config import load_experiment, load_profile\n"
        "from dure.config.rehearsal import rehearsal_of\n"
        "from dure.family import load_family\n"
        "from dure.preflight.foreseeing import foresee\n"
        "changes = {'rehearsal.max_train_rows': 16, 'rehearsal.num_layers': 1}\n"
        "experiment = rehearsal_of(load_experiment('kobart_baseline').with_(changes))\n"
        "print(foresee(load_family(experiment), load_profile('cpu')).forecast.parts['libraries'] / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # kiwi alone takes half a GiB, and nothing was scored yet.
    assert float(done.stdout.splitlines()[-1]) > 900
