"""What a study will take is forecast from its experiments, and unknown where theirs is."""

from __future__ import annotations

import pytest

from dure import api
from dure.config import load_experiment, load_profile
from dure.config.loading import dump_yaml
from dure.config.rehearsal import rehearsal_of
from dure.family import load_family
from dure.preflight.settings import foretold
from dure.reporting.forecasts import forecast_text
from dure.studies.study import load_study


def test_the_disk_of_a_study_is_unknown_where_that_of_an_experiment_is(tmp_path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("kind: batch\nname: one\nexperiments: [kobart_baseline]\n", encoding="utf-8")
    record = api.forecast(str(study), ["model.checkpoint=nobody/knows"], profile="cpu")
    assert "'nobody/knows' is not on this machine" in record["experiments"][0]["unknown"]
    assert record["disk"] is None
    assert forecast_text(record).endswith("time unknown, disk unknown")


def test_a_forecast_that_does_not_fit_names_something_also_where_no_setting_helps():
    each = {
        "name": "one",
        "sentence": "forecast",
        "memory_parts_mb": {},
        "free_mb": 1,
        "where": "free",
        "disk": 1,
    }
    record = {"study": None, "experiments": [each | {"verdict": "may not fit", "would_fit": []}]}
    assert "would fit: a smaller model, or a profile with a larger device" in forecast_text(record)
    record = {"study": None, "experiments": [each | {"verdict": "fits", "would_fit": []}]}
    assert "would fit" not in forecast_text(record)


@pytest.mark.parametrize(
    ("kind", "copies"),
    [
        ("kind: batch\nexperiments: [transfer_bert]\nseeds: 3", 3),
        ("kind: crossval\nexperiments: [transfer_bert]\nfolds: 4", 4),
        # The weights of trials that were beaten are removed.
        ("kind: sweep\nexperiment: transfer_bert\nnum_trials: 9", 2),
    ],
)
def test_the_disk_of_a_study_is_that_of_all_its_runs(tmp_path, kind, copies) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"name: one\n{kind}\n", encoding="utf-8")
    few = ["rehearsal.max_train_rows=32", "rehearsal.max_dev_rows=8"]
    plan = load_study(str(file)).with_overrides(few)
    experiments = plan.load()
    study = plan.named(experiments).resolved(experiments)
    [run] = study.kind_of()(study, experiments, rehearsal_of).read()
    record = api.forecast(str(file), few, profile="cpu", rehearse=True)
    assert record["disk"] == copies * foretold(load_family(run)).disk > 0


def test_a_progressive_training_leaves_the_weights_of_every_epoch_of_every_stage(tmp_path) -> None:
    file = tmp_path / "study.yaml"
    stages = "ratios: [0.25, 0.5, 1.0]\nepochs_per_stage: 2"
    file.write_text(f"name: one\nkind: progressive\nexperiment: transfer_bert\n{stages}\n", encoding="utf-8")
    few = ["rehearsal.max_train_rows=32", "rehearsal.max_dev_rows=8"]
    run = foretold(load_family(rehearsal_of(load_experiment("transfer_bert", few))))
    record = api.forecast(str(file), few, profile="cpu", rehearse=True)
    assert run.num_epochs == 0
    assert record["disk"] == run.disk + (3 * 2 + 1) * run.epoch  # one more while one is written


def test_a_cross_validation_is_forecast_without_a_table_that_its_folds_do_without(tmp_path) -> None:
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"이 글은 {row} 번째 글이다,{row % 2}\n" for row in range(24)),
        encoding="utf-8",
    )
    file = tmp_path / "study.yaml"
    file.write_text("name: one\nkind: crossval\nexperiments: [transfer_bert]\nfolds: 3\n", encoding="utf-8")
    words = [f"data.train={tmp_path / 'rows.csv'}", "training.batch_size=2", "training.epochs=1"]
    [fold] = api.forecast(str(file), words, profile="cpu", rehearse=True)["experiments"]
    assert 24 / 3 / 2 <= fold["steps"] < 24 / 2  # what is held out is not trained on


def test_a_study_costs_what_its_machine_costs_for_as_long(tmp_path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("name: one\nkind: batch\nexperiments: [transfer_bert]\nseeds: 3\n", encoding="utf-8")
    few = ["rehearsal.max_train_rows=32", "rehearsal.max_dev_rows=8"]
    machine = tmp_path / "dear.yaml"
    slow_and_dear = {"tflops": 1e-4, "cost_per_hour": 7200.0}
    machine.write_text(dump_yaml(load_profile("m4").model_copy(update=slow_and_dear)), encoding="utf-8")
    record = api.forecast(str(study), few, profile=str(machine), rehearse=True)
    assert record["seconds"][0] > 1
    assert record["cost"] == pytest.approx([each * 2 for each in record["seconds"]])
    assert f"costs {record['cost'][0]:.2f}–{record['cost'][1]:.2f}, disk" in forecast_text(record)


@pytest.mark.parametrize(
    ("kind", "in_a_row", "at_once"),
    [
        ("kind: batch\nexperiments: [transfer_bert]\nseeds: 3", 1.0, 2),
        ("kind: crossval\nexperiments: [transfer_bert]\nfolds: 4", 1.0, 2),
        ("kind: progressive\nexperiment: transfer_bert\nratios: [0.5, 1.0]\nepochs_per_stage: 3", 1.5, 1),
    ],
)
def test_a_study_takes_the_time_of_the_trials_that_fit_side_by_side_and_shares_the_memory(
    tmp_path, monkeypatch, kind, in_a_row, at_once
) -> None:
    """Two cores for one core a trial: between an even share and the longest one begun when all others end."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("dure.training.memory.free_on_host", lambda: 2**40)
    file, machine = tmp_path / "study.yaml", tmp_path / "paced.yaml"
    file.write_text(f"name: one\n{kind}\n", encoding="utf-8")
    machine.write_text("extends: cpu\nname: paced\ntflops: 0.0001\n", encoding="utf-8")
    few = ["rehearsal.max_train_rows=32", "rehearsal.max_dev_rows=8", "training.epochs=3"]
    record = api.forecast(str(file), few, profile=str(machine), rehearse=True)
    [part] = record["experiments"]
    assert part["free_mb"] == 2**20 // at_once
    trainings = load_study(str(file)).num_trainings(load_experiment("transfer_bert", ["training.epochs=3"]))
    (least, most), ends = (
        part["seconds"],
        [one * times for one, times in zip(part["seconds"], trainings, strict=True)],
    )
    assert record["seconds"] == pytest.approx(
        [
            max(ends[0] / at_once, least * in_a_row),
            ends[1] / at_once + most * in_a_row * (1 - 1 / at_once),
        ],
        rel=0.02,
    )
