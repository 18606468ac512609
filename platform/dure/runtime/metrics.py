"""Metrics of a run for Ray: figures that every node of a cluster offers to Prometheus."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from functools import cache

import ray
from ray.util.metrics import Counter, Gauge

from dure.errors import named
from dure.events import Notify, RunListener, RunProgress, RunStart
from dure.runs.folder import RunResult, StageFolder
from dure.training import memory
from dure.training.run import RunRequest

logger = logging.getLogger(__name__)

TAGS = ("study", "trial", "stage")
"""Tags of every figure."""

GAUGES: Mapping[str, str] = {
    "dure_loss": "Training loss, mean since the record before",
    "dure_task_loss": "Training loss of one task of several, mean since the record before",
    "dure_learning_rate": "Learning rate",
    "dure_gradient_norm": "Norm of the gradients before clipping",
    "dure_evaluation": "Figure of a validation or test, by its name in metrics.jsonl; not those of single classes",
    "dure_samples_per_second": "Training rows per second between two records, validations left out",
    "dure_step": "Optimiser steps taken",
    "dure_epoch": "Passes over the training rows, with fraction",
    "dure_progress": "Steps taken as a share of all, 0 to 1",
    "dure_stage_ratio": "Share of the training rows that the run trains on, 0 to 1",
    "dure_resident_memory_bytes": "Resident memory of the main worker's process",
    "dure_device_memory_bytes": "Memory that tensors hold on the main worker's device; not on a CPU",
}
"""Every gauge with its description. Prometheus sees them with ``ray_`` before their names."""

COUNTERS: Mapping[str, str] = {"dure_samples": "Training rows seen"}
"""Every counter with its description. Prometheus sees them as ``ray_<name>_total``."""

_FURTHER_TAGS = {"dure_task_loss": ("task",), "dure_evaluation": ("metric",)}
_TRAINING = {
    "loss": "dure_loss",
    "learning_rate": "dure_learning_rate",
    "grad_norm": "dure_gradient_norm",
}
_TASK = "loss_"
_NO_FIGURES = ("_runtime", "_per_second", "]")
"""Ends of the names of times, and of figures of single classes (``eval_f1[불만]``), of which there can be hundreds."""
_SECONDS_BETWEEN_BEATS = 1.0
"""Ray forgets a gauge that was not set for two of its reporting intervals, of which the shortest is a second."""
_BYTES = 1024 * 1024


class RayMetrics(RunListener):
    """Exports a run's figures as Ray metrics as long as it trains, in a process that is connected to Ray.

    Prometheus gets them from the metrics port of the node, with the tags ``study``, ``trial`` (the experiment) and
    ``stage`` (empty unless the run is a stage of a longer training). Where Ray is not connected nothing is exported,
    and an error in Ray's metrics is reported once and never that of the run.
    """

    def __init__(self, request: RunRequest) -> None:
        experiment = request.experiment
        stage = request.path.name if issubclass(request.layout, StageFolder) else ""
        trial = experiment.name.removesuffix(f".{stage}")
        self._tags = {"study": request.group or trial, "trial": trial, "stage": stage}
        self._samples_per_step = experiment.training.effective_batch_size
        self._device = request.profile.device
        ratio = float(experiment.data.train_ratio or 1)
        self._values: dict[tuple[str, str], float] = {("dure_stage_ratio", ""): ratio}
        self._step = 0
        self._seconds: float | None = None
        self._notify: Notify = logger.info
        self._export: _Export | None = None

    def started(self, start: RunStart, notify: Notify) -> None:
        """Begin to export, when this process is connected to Ray."""
        self._step, self._notify = start.resumed_step, notify
        if ray.is_initialized():
            self._guarded(self._open)

    def progressed(self, progress: RunProgress) -> None:
        """Export the numbers of a record."""
        if self._export is not None:
            self._guarded(lambda: self._take(progress))

    def finished(self, result: RunResult) -> None:
        """Export no more; what was the last is seen for two of Ray's reporting intervals."""
        export, self._export = self._export, None
        if export is not None:
            export.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do one step; when Ray's metrics fail, report it and fall silent."""
        try:
            step()
        except Exception as error:
            self.finished(RunResult("", "failed"))
            self._notify(f"figures for Ray's metrics are off from here, the run goes on: {named(error, 160)}")

    def _open(self) -> None:
        self._export = _Export(self._tags, self._device)
        self._export.set(self._values)

    def _take(self, progress: RunProgress) -> None:
        values: dict[tuple[str, str], float] = {
            ("dure_step", ""): progress.step,
            ("dure_epoch", ""): progress.epoch,
            ("dure_progress", ""): progress.step / max(1, progress.total_steps),
        }
        for name, value in progress.metrics.items():
            if progress.kind == "eval" and not name.endswith(_NO_FIGURES):
                values["dure_evaluation", name] = value
            elif progress.kind == "train" and name in _TRAINING:
                values[_TRAINING[name], ""] = value
            elif progress.kind == "train" and name.startswith(_TASK):
                values["dure_task_loss", name.removeprefix(_TASK)] = value
        samples = max(0, progress.step - self._step) * self._samples_per_step
        if samples and self._seconds is not None and progress.seconds > self._seconds:
            values["dure_samples_per_second", ""] = samples / (progress.seconds - self._seconds)
        self._step, self._seconds = progress.step, progress.seconds
        if self._export is not None:
            self._export.set(values, samples=samples)


class _Export:
    """Ray's gauges for one run, set again every second by a thread of their own.

    Memory is a GPU's: a CPU's tensors cannot be told from the rest of the process.
    """

    def __init__(self, tags: Mapping[str, str], device: str) -> None:
        self._tags = {key: _ascii(value) for key, value in tags.items()}
        self._device = device
        self._values: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="ray metrics", daemon=True)
        self._thread.start()

    def set(self, values: Mapping[tuple[str, str], float], *, samples: int = 0) -> None:
        """Export values from now on, by gauge and further tag; what is not finite ends what was there before."""
        with self._lock:
            self._values |= values
            self._values = {key: value for key, value in self._values.items() if math.isfinite(value)}
        if samples:
            _counter("dure_samples").inc(samples, tags=self._tags)
        self._set_all()

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_BEATS):
            try:
                self._set_all()
            except Exception:
                logger.exception(
                    "Ray's metrics fail between two records; the next record tells it if they still do"
                )
                return

    def _set_all(self) -> None:
        with self._lock:
            values = dict(self._values)
        values["dure_resident_memory_bytes", ""] = memory.resident_mb() * _BYTES
        if self._device != "cpu":
            values["dure_device_memory_bytes", ""] = memory.allocated_mb(self._device) * _BYTES
        for (name, further), value in values.items():
            tags = self._tags | dict.fromkeys(_FURTHER_TAGS.get(name, ()), _ascii(further))
            _gauge(name).set(value, tags=tags)


def _ascii(text: str) -> str:
    """Return a tag as Ray takes it; other letters are written as their numbers."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


# Kept as long as the process: a metric that Python gives up takes along what Ray has not yet collected, which it does
# every ten seconds only.
@cache
def _gauge(name: str) -> Gauge:
    return Gauge(name, GAUGES[name], tag_keys=(*TAGS, *_FURTHER_TAGS.get(name, ())))


@cache
def _counter(name: str) -> Counter:
    return Counter(name, COUNTERS[name], tag_keys=TAGS)
