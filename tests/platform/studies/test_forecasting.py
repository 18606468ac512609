"""What a study will take is forecast from its experiments, and unknown where theirs is."""

from __future__ import annotations

from dure import api
from dure.reporting.forecasts import forecast_text


def test_the_disk_of_a_study_is_unknown_where_that_of_an_experiment_is(tmp_path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("kind: batch\nname: one\nexperiments: [kobart_baseline]\n", encoding="utf-8")
    record = api.forecast(str(study), ["model.checkpoint=nobody/knows"], profile="cpu")
    assert "'nobody/knows' is not on this machine" in record["experiments"][0]["unknown"]
    assert record["disk"] is None
    assert forecast_text(record).endswith("time unknown, disk unknown")
