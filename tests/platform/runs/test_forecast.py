"""The forecast counts what the formula says."""

from __future__ import annotations

from dure.runs.forecast import forecast


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
