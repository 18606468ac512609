"""The forecast counts what the formula says."""

from __future__ import annotations

import pytest

from dure.runs.forecast import forecast, num_parameters


def test_a_checkpoint_takes_twelve_bytes_a_parameter_and_an_average_four_more(tiny):
    plain = forecast(tiny("t5", "full"), 1000, 1000)
    averaged = forecast(tiny("t5", "full", ema=0.99), 1000, 1000)
    assert averaged.checkpoint == plain.checkpoint + 4000 == 16_000


def test_one_checkpoint_more_than_are_kept_lies_on_the_disk_for_a_moment(tiny):
    foretold = forecast(tiny("t5", "full", save_total_limit=5), 1000, 1000)
    assert foretold.disk == 6 * 12_000 + 4000


def test_the_weights_of_epochs_that_are_kept_count(tiny):
    experiment = tiny("t5", "full", epochs=60, keep_epochs=2, keep_epochs_limit=10, ema=0.99)
    foretold = forecast(experiment, 1000, 1000)
    assert (foretold.num_epochs, foretold.epoch) == (11, 8000)
    assert foretold.disk == 3 * 16_000 + 11 * 8000 + 4000


def test_a_parameter_of_four_bits_is_one_that_the_final_model_has_in_full():
    layers = pytest.importorskip("bitsandbytes").nn
    layer = layers.Linear4bit(64, 4, bias=False).to("cpu")
    assert layer.weight.numel() == 128  # bytes, with two in each
    assert num_parameters(layer) == (256, 0)
