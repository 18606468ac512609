"""Tracking a run with MLflow: a server, or files beside the run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dure.config.schema import Experiment
from dure.config.tracking import MlflowConfig
from dure.config.tree import flat
from dure.events import Notify, RunStart
from dure.files import write_text
from dure.reporting.tracker import Tracker, summary_of
from dure.runs.folder import RunResult
from dure.secrets import redacted

ID_FILE = "mlflow_run_id"
"""Holds the id of the MLflow run, in the folder of the run."""
STORE = "mlruns"
"""Folder of the files where there is no server, beside the folder of the run."""

_ANSWER_SECONDS = "6"
_STATES = {"completed": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}
_MOST_AT_ONCE = 100
_LONGEST_VALUE = 500
_FORBIDDEN = re.compile(r"[^\w/.\- :]")


def tracker(experiment: Experiment) -> Tracker:
    """Return the tracker of a run."""
    return MlflowTracker(experiment.mlflow)


class MlflowTracker(Tracker):
    """Sends one run to MLflow: settings, tags, metrics by step, and the result.

    Every run is its own MLflow run, whose id its folder keeps, so that runs may go side by side. MLflow never forgets a
    number: a run that goes back to an earlier step goes on as a new MLflow run with the history up to there, and the
    one before is marked as deleted.
    """

    label = "MLflow"

    def __init__(self, config: MlflowConfig) -> None:
        super().__init__()
        self._config = config
        self._client: Any = None
        self._id = ""
        self._step = 0

    def open(self, start: RunStart, notify: Notify) -> bool:
        """Make a run, or go on in the one that this folder has."""
        # Read when a request is made: a server that does not answer must not hold up the training.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", _ANSWER_SECONDS)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        uri = self._config.uri or os.environ.get("MLFLOW_TRACKING_URI")
        is_server = uri is not None
        uri = uri or (start.path.absolute().parent / STORE).as_uri()
        self._client = client = MlflowClient(tracking_uri=uri)
        experiment = self._experiment(client)
        self._id = self._continued(start) or self._new(start, experiment)
        write_text(start.path / ID_FILE, self._id + "\n")
        shown = (
            redacted(uri)
            if is_server
            else f"{STORE} beside each run; mlflow server --backend-store-uri {uri}"
        )
        notify(f"MLflow: {shown}")
        return True

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Send numbers of a step."""
        self._step = step
        self._send({**values, "epoch": epoch}, step)

    def close(self, result: RunResult) -> None:
        """Send the result and end the run."""
        found = summary_of(result)
        self._send({key: value for key, value in found.items() if isinstance(value, int | float)}, self._step)
        for key, value in found.items():
            if isinstance(value, str):
                self._client.set_tag(self._id, _named(key), value)
        self._client.set_terminated(self._id, _STATES.get(result.state, "FAILED"))

    def _experiment(self, client: Any) -> str:
        """Return the id of the MLflow experiment; of two processes that make it at once, one finds the other's."""
        from mlflow.exceptions import MlflowException

        name = self._config.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name))
            except MlflowException:
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _new(self, start: RunStart, experiment: str) -> str:
        """Make a run with the settings of this one."""
        tags = {"dure.path": str(start.path), **{f"dure.tag.{tag}": "" for tag in start.tags if tag}}
        if start.group:
            tags["dure.study"] = start.group
        made = self._client.create_run(
            experiment, run_name=start.name, tags={_named(key): value for key, value in tags.items()}
        )
        run: str = made.info.run_id
        from mlflow.entities import Param

        settings = [
            Param(_named(key), str(value)[:_LONGEST_VALUE]) for key, value in flat(start.experiment).items()
        ]
        for place in range(0, len(settings), _MOST_AT_ONCE):
            self._client.log_batch(run, params=settings[place : place + _MOST_AT_ONCE])
        return run

    def _continued(self, start: RunStart) -> str | None:
        """Return the run that this folder has; another one with its history where it has later steps than this goes on from."""
        file = start.path / ID_FILE
        if not file.is_file():
            return None
        from mlflow.exceptions import MlflowException

        before = file.read_text(encoding="utf-8").strip()
        try:
            run = self._client.get_run(before)
        except MlflowException:  # of another server, or deleted there
            return None
        history = [each for key in run.data.metrics for each in self._client.get_metric_history(before, key)]
        if all(each.step <= start.resumed_step for each in history if not _is_result(each.key)):
            self._client.update_run(before, status="RUNNING")
            return before
        fresh = self._new(start, run.info.experiment_id)
        kept = [each for each in history if each.step <= start.resumed_step and not _is_result(each.key)]
        if start.resumed_step:
            self._send_all(fresh, kept)
        self._client.delete_run(before)
        return fresh

    def _send(self, values: Mapping[str, float | int], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._send_all(
            self._id, [Metric(_named(key), float(value), now, step) for key, value in values.items()]
        )

    def _send_all(self, run: str, metrics: Sequence[Any]) -> None:
        for place in range(0, len(metrics), _MOST_AT_ONCE):
            self._client.log_batch(run, metrics=metrics[place : place + _MOST_AT_ONCE])


def _is_result(key: str) -> bool:
    return key.startswith("result/")


def _named(key: str) -> str:
    """Return a name as MLflow takes it: ``eval/f1[joy]`` is ``eval/f1/joy``."""
    return _FORBIDDEN.sub("_", key.replace("[", "/").replace("]", ""))
