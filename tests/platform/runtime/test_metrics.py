"""What a cluster sees of a study: Ray metrics with the numbers of its records, names in the State API, Grafana."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from dure.config.schema import Experiment
from dure.events import RunListener, RunProgress, RunStart
from dure.files import read_json_lines
from dure.runs.folder import RunFolder, RunResult
from dure.runtime.metrics import COUNTERS, GAUGES, TAGS, RayMetrics
from dure.studies.adapter import run_study
from dure.studies.batch.plan import BatchStudy
from dure.studies.batch.strategy import Batch
from dure.training.run import RunRequest

GRAFANA = Path(__file__).parents[3] / "cluster" / "grafana" / "dure.json"
PROMETHEUS_NAMES = {f"ray_{name}" for name in GAUGES} | {f"ray_{name}_total" for name in COUNTERS}
NOT_EXPORTED = ("_runtime", "_per_second", "]")


class _Look(RunListener):
    """Leaves in the run's folder what the node's endpoint and the State API show before the run's process goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def finished(self, result):
        import os
        import time

        import psutil
        import ray
        from ray.job_submission import JobSubmissionClient
        from ray.util.state import list_actors

        node = next(node for node in ray.nodes() if node["Alive"])
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        address = ray.get_runtime_context().gcs_address
        # Ray's processes report every ten seconds, and not all figures in one report.
        until, series, awaited = time.monotonic() + 60, {}, ("ray_dure_loss{", 'metric="test_')
        while time.monotonic() < until and not all(any(word in line for line in series) for word in awaited):
            text = urllib.request.urlopen(url, timeout=10).read().decode()
            series = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("ray_dure_"))
            time.sleep(0.5)
        seen = {
            "series": series,
            "actors": [(each.class_name, each.repr_name) for each in list_actors(address, detail=True)],
            "jobs": [job.metadata for job in JobSubmissionClient(address).list_jobs()],
            "title": psutil.Process(os.getpid()).cmdline()[0],
        }
        (self._path / f"seen-{result.name}.json").write_text(json.dumps(seen), encoding="utf-8")


def _named(experiment: Experiment, name: str) -> Experiment:
    info = experiment.experiment.model_copy(update={"name": name})
    return experiment.model_copy(update={"experiment": info})


def _read(series: dict[str, str], trial: str) -> dict[tuple[str, str], float]:
    """Return the value of every series of a trial by name and further tag."""
    values = {}
    for key, value in series.items():
        name, labels = re.fullmatch(r"(\w+)\{(.*)\}", key).groups()
        tags = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
        assert set(TAGS) <= tags.keys()
        if tags["trial"] == trial:
            assert (tags["study"], tags["stage"]) == ("seen", "")
            values[name, tags.get("metric", "")] = float(value)
    return values


@pytest.mark.slow
def test_a_batch_shows_its_numbers_to_prometheus_and_its_names_to_the_dashboard(
    tiny, cpu, tmp_path, ray_address
):
    experiment = _named(tiny("bert"), "watched")
    study = BatchStudy(kind="batch", name="seen", experiments=("watched",), metrics=("eval_accuracy",))
    summary = run_study(
        Batch(study, [experiment]),
        profile=cpu,
        path=tmp_path,
        listeners=lambda experiment: [_Look(tmp_path)],
        address=ray_address,
    )
    assert summary.state == "completed", summary
    seen = json.loads((tmp_path / "seen-watched.json").read_text(encoding="utf-8"))
    values = _read(seen["series"], experiment.name)
    records = read_json_lines(RunFolder(tmp_path / experiment.name).metrics)
    last = next(record for record in reversed(records) if record["kind"] == "train")
    for gauge, key in {
        "ray_dure_loss": "loss",
        "ray_dure_learning_rate": "learning_rate",
        "ray_dure_gradient_norm": "grad_norm",
        "ray_dure_step": "step",
    }.items():
        assert values[gauge, ""] == pytest.approx(last[key], rel=1e-12), gauge
    figures = {
        key: value
        for record in records
        if record["kind"] == "eval"
        for key, value in record.items()
        if key.startswith(("eval_", "test_", "untrained_")) and not key.endswith(NOT_EXPORTED)
    }
    assert {metric for name, metric in values if name == "ray_dure_evaluation"} == figures.keys()
    assert figures.keys() >= {"eval_accuracy", "eval_macro_f1", "eval_loss"}
    for key, value in figures.items():
        assert values["ray_dure_evaluation", key] == pytest.approx(value, rel=1e-12), key
    assert values["ray_dure_progress", ""] == values["ray_dure_stage_ratio", ""] == 1
    rows = last["step"] * experiment.training.effective_batch_size
    assert values["ray_dure_samples_total", ""] == rows
    assert values["ray_dure_samples_per_second", ""] > 0
    assert values["ray_dure_resident_memory_bytes", ""] > 100e6
    assert ("ray_dure_device_memory_bytes", "") not in values
    assert {name for name, _ in values} <= PROMETHEUS_NAMES
    assert ["seen", "seen"] in seen["actors"]
    assert seen["title"] == f"ray::seen/{experiment.name}"
    assert {"job_name": "seen"} in seen["jobs"]


def _start(path: Path) -> RunStart:
    return RunStart("x", path, {}, (), None, total_steps=2)


def test_without_a_cluster_nothing_is_exported_and_nobody_is_told(tiny, cpu, tmp_path):
    import ray

    told: list[str] = []
    metrics = RayMetrics(RunRequest(tiny("bert"), cpu, tmp_path))
    metrics.started(_start(tmp_path), told.append)
    metrics.progressed(RunProgress("train", 1, 2, 0.5, 1.0, {"loss": 1.0}))
    metrics.finished(RunResult("x", "completed"))
    assert told == []
    assert not ray.is_initialized()


def test_metrics_that_fail_are_told_once_and_never_end_the_run(tiny, cpu, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    told: list[str] = []
    metrics = RayMetrics(RunRequest(tiny("bert"), cpu, tmp_path))
    metrics._tags["stage"] = 3
    metrics.started(_start(tmp_path), told.append)
    for step in (1, 2):
        metrics.progressed(RunProgress("train", step, 2, 0.5, 1.0, {"loss": 1.0}))
    metrics.finished(RunResult("x", "completed"))
    assert len(told) == 1
    assert "the run goes on: AttributeError" in told[0]


def test_a_stage_is_told_from_its_trial(tiny, cpu, tmp_path):
    from fractions import Fraction

    from dure.runs.folder import StageFolder

    experiment = _named(tiny("bert"), "base.stage_3_30pct")
    data = experiment.data.model_copy(update={"train_ratio": Fraction(3, 10)})
    request = RunRequest(
        experiment.model_copy(update={"data": data}),
        cpu,
        tmp_path / "stage_3_30pct",
        group="grow",
        layout=StageFolder,
    )
    metrics = RayMetrics(request)
    assert metrics._tags == {"study": "grow", "trial": "base", "stage": "stage_3_30pct"}
    assert metrics._values == {("dure_stage_ratio", ""): 0.3}


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(GRAFANA.read_text(encoding="utf-8"))


def test_the_dashboard_queries_every_metric_that_is_exported_and_no_other(dashboard):
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [each["definition"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert set(re.findall(r"ray_dure_\w+", " ".join(queries))) == PROMETHEUS_NAMES
    assert set(re.findall(r"ray_dure_\w+", " ".join(variables))) <= PROMETHEUS_NAMES
    for query in queries:
        assert 'study=~"$study", trial=~"$trial"' in query


def test_the_dashboard_is_one_that_grafana_imports(dashboard):
    assert isinstance(dashboard["schemaVersion"], int)
    assert dashboard["title"]
    assert dashboard.get("id") is None, "Grafana gives the id"
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "study", "trial", "metric"]
    assert variables["datasource"]["query"] == "prometheus"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        box = panel["gridPos"]
        assert box["x"] + box["w"] <= 24
        cells = {
            (x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"]
            assert target["expr"].count("(") == target["expr"].count(")")
