"""The forecast counts what the formula says."""

from __future__ import annotations

import pytest

from dure.runs.forecast import forecast


def test_full_training_takes_sixteen_bytes_a_parameter_and_an_average_four_more(tiny):
    plain = forecast(tiny("t5", "full"), 1000, 1000, "bf16")
    averaged = forecast(tiny("t5", "full", ema=0.99), 1000, 1000, "bf16")
    assert plain.memory == 16_000
    assert averaged.memory == 20_000
    assert averaged.checkpoint == plain.checkpoint + 4000 == 16_000


@pytest.mark.parametrize(
    ("precision", "in_4bit", "frozen"), [("fp32", False, 3600), ("bf16", False, 1800), ("bf16", True, 450)]
)
def test_frozen_weights_are_in_the_format_of_the_computation(tiny, precision, in_4bit, frozen):
    foretold = forecast(tiny(), 1000, 100, precision, in_4bit=in_4bit)
    assert foretold.weights == frozen + 400
    assert foretold.memory == frozen + 1600


def test_one_checkpoint_more_than_are_kept_lies_on_the_disk_for_a_moment(tiny):
    foretold = forecast(tiny("t5", "full", save_total_limit=5), 1000, 1000, "fp32")
    assert foretold.disk == 6 * 12_000 + 4000


def test_the_weights_of_epochs_that_are_kept_count(tiny):
    experiment = tiny("t5", "full", epochs=60, keep_epochs=2, keep_epochs_limit=10, ema=0.99)
    foretold = forecast(experiment, 1000, 1000, "fp32")
    assert (foretold.num_epochs, foretold.epoch) == (11, 8000)
    assert foretold.disk == 3 * 16_000 + 11 * 8000 + 4000
