"""The folds of an experiment put together, as a study does it at its end."""

from __future__ import annotations

from dure.runs.folder import RunFolder, RunResult
from dure.studies.crossval.results import ExperimentRecord, held_out, over_folds, put_together


def together(name, paths, output):
    """Return an experiment, by the folders of its folds, with what their predictions say."""
    folds = []
    for path in paths:
        result = RunFolder(path).read_result() or RunResult(name, "interrupted")
        values = {"state": result.state, "seconds": result.seconds, "error": result.error}
        metrics = held_out(result.metrics)
        folds.append({"fold": int(path.name[-1]), "path": str(path), "metrics": metrics, **values})
    mean, std = over_folds([fold["metrics"] for fold in folds if fold["state"] == "completed"])
    values = {"name": name, "folds": folds, "mean": mean, "std": std}
    return put_together(ExperimentRecord.model_validate(values), output)[0]
