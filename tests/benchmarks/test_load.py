"""The driver of a study does not slow down with its trials."""

from __future__ import annotations

import pytest

from tests.benchmarks.load import board


@pytest.mark.slow
def test_what_the_driver_does_for_a_trial_does_not_grow_with_their_number(tmp_path):
    found = board(400, tmp_path)["dure's driver"]
    assert found["trials"] == 400
    # It took 0.2 s at 300 trials and grew with each, when every end made the points of all trials anew.
    assert found["last_s"] < 4 * found["first_s"] + 0.02
    assert found["last_mb"] < 1.1 * found["first_mb"]
