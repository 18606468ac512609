"""The union of studies: what a YAML of each kind says, how it goes on, and records that are read back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from dure.config import available
from dure.config.loading import dump_yaml
from dure.errors import UserError
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.results import BatchResults
from dure.studies.crossval.plan import CrossvalStudy
from dure.studies.plan import StudyPlan
from dure.studies.progressive.plan import ProgressiveStudy
from dure.studies.study import load_study, read_results, stored_study, study_kinds
from dure.studies.sweep.plan import SweepStudy

WHOLE = {
    "study": "s", "kind": "batch", "path": "p", "state": "completed", "started": "2026-01-01T00:00:00", "seconds": 1.0,
    "settings": [], "comparisons": [], "metrics": ["eval_loss"], "definitions": {"eval_loss": {"direction": "min", "unit": "number"}}, "best": None,
    "targets": [], "sentences": [],
    "experiments": [
        {"name": "a", "state": "failed", "metrics": {}, "error": "no", "seconds": 0.0, "path": "p/a", "forecast": None},
    ],
}  # fmt: skip


def kind_of(study: StudyPlan) -> str:
    return study.kind


def test_each_kind_has_two_examples_or_more_and_each_says_what_it_finds_out():
    studies = [load_study(name) for name in available("study")]
    kinds = [kind_of(study) for study in studies]
    assert all(kinds.count(kind) >= 2 for kind in study_kinds())
    assert all(study.description for study in studies)


@pytest.mark.parametrize("name", available("study"))
def test_what_is_written_into_a_folder_loads_back(name, tmp_path):
    study = load_study(name)
    study = study.named(study.load())
    (tmp_path / "study.yaml").write_text(dump_yaml(study), encoding="utf-8")
    assert stored_study(tmp_path, type(study)) == study
    assert yaml.safe_load(dump_yaml(study))["kind"] == study.kind


def test_overrides_are_a_list_or_keys_and_values():
    given = {"training": {"epochs": 2}, "lora.rank": 8, "data.train": "가.csv"}
    study = BatchStudy.model_validate({"experiments": ["a"], "overrides": given})
    assert study.overrides == ("training.epochs=2", "lora.rank=8", 'data.train="가.csv"')
    assert study.with_overrides(["x=1"]).overrides[-1] == "x=1"


def test_a_continued_study_keeps_what_it_does_not_say_and_refuses_what_cannot_change():
    before = SweepStudy(
        name="n",
        experiment="e",
        metrics=("eval_loss:min",),
        num_trials=3,
        sampler="random",
        tries=({"a": 1},),
    )
    again = SweepStudy(experiment="e", metrics=("eval_loss",), num_trials=5, tries=({"a": 2},))
    merged = again.continued(before, "folder")
    assert (merged.name, merged.sampler, merged.num_trials) == ("n", "random", 5)
    assert merged.tries == ({"a": 1}, {"a": 2})
    assert merged.metrics == before.metrics
    with pytest.raises(UserError, match="'metrics' cannot change") as caught:
        SweepStudy(experiment="e", metrics=("eval_loss:max",)).continued(before, "folder")
    assert caught.value.where == "--metric"
    with pytest.raises(UserError, match="'folds' cannot change"):
        CrossvalStudy(experiments=("a",), folds=4).continued(CrossvalStudy(experiments=("a",)), "folder")
    grown = ProgressiveStudy(experiment="e", min_gain=0.1).continued(
        ProgressiveStudy(name="g", experiment="e", start_ratio="0.5"), "folder"
    )
    assert (grown.name, grown.min_gain, grown.start_ratio) == ("g", 0.1, None)


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    (tmp_path / "study.yaml").write_text("kind: batch\nname: s\nexperiments: [a]\n", encoding="utf-8")
    record = BatchResults.model_validate(WHOLE)
    record.write(tmp_path / "experiment_summary.json")
    assert read_results(tmp_path) == record
    assert json.loads((tmp_path / "experiment_summary.json").read_text(encoding="utf-8")) == WHOLE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seconds": "long"}, "'seconds'"),
        ({"experiments": [{"name": "a"}]}, "'experiments[0].state' is missing"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"kind": "sweep"}, "'kind'"),
    ],
)
def test_a_broken_record_is_named_by_file_and_key(change, said, tmp_path):
    file = tmp_path / "experiment_summary.json"
    file.write_text(json.dumps(WHOLE | change), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        BatchResults.read(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_a_folder_without_a_study_has_no_results(tmp_path):
    with pytest.raises(UserError, match="'kind' is missing"):
        read_results(tmp_path)


def test_plans_reports_and_records_need_no_ray():
    modules = [
        "dure.studies.study", "dure.studies.life_cycle", "dure.studies.kind",
        *(f"dure.studies.{kind}.{part}" for kind in study_kinds() for part in ("plan", "results", "driver")),
    ]  # fmt: skip
    script = f"import sys, {', '.join(modules)}\nprint('ray' in sys.modules, 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_a_search_space_that_is_not_there_is_told_with_the_line_that_names_it(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("kind: sweep\nexperiment: kobart_baseline\nspace: nothing\n", encoding="utf-8")
    with pytest.raises(UserError, match="there is no space 'nothing'") as caught:
        load_study(str(file))
    assert str(caught.value.where).endswith("study.yaml:3")
