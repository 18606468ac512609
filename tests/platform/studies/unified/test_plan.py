"""What may change while a unified training goes on."""

from __future__ import annotations

import pytest

from dure.errors import UserError
from dure.studies.unified.plan import UnifiedStudy


@pytest.mark.parametrize("key", ["sweep_points", "sweep_epochs"])
def test_a_sweep_that_has_begun_is_not_another_one_later(key):
    before = UnifiedStudy(experiment="red_heart_tiny")
    with pytest.raises(UserError, match=f"'{key}' cannot change"):
        UnifiedStudy(experiment="red_heart_tiny", **{key: 9}).continued(before, "there")
    same = UnifiedStudy(experiment="red_heart_tiny", epochs=6, **{key: getattr(before, key)})
    assert same.continued(before, "there").epochs == 6
