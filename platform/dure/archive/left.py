"""The runs that folders hold, by what they left there; nothing is imported that a folder names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dure.config.loading import load_record
from dure.config.schema import Experiment
from dure.errors import UserError
from dure.metrics.metric import Metric, recorded
from dure.reporting.figures import shown_path
from dure.runs.budget import runs_in
from dure.runs.folder import RunFolder, RunResult


@dataclass(frozen=True)
class LeftRun:
    """A run that completed.

    ``given`` is what the user named it by: its folder, or one around it. ``hashes`` are of the rows of each split's
    table.
    """

    path: Path
    given: str
    experiment: Experiment
    result: RunResult
    hashes: Mapping[str, str]

    @property
    def folder(self) -> RunFolder:
        """The names in its folder."""
        return RunFolder(self.path)

    @property
    def fold(self) -> int | None:
        """The fold that it held out, if it did."""
        fold = self.experiment.data.fold
        return None if fold is None else fold.number

    def metric(self, bare: str) -> Metric:
        """Return a metric of validation by its name without ``eval_``, as its family defined it for the run."""
        return recorded({"definitions": self.result.definitions}, f"eval_{bare}")

    def figure(self, name: str) -> float | None:
        """Return a figure of the result; None where there is none, or no number."""
        value = self.result.metrics.get(name)
        return float(value) if isinstance(value, int | float) else None


def folders_of(named: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """Return the folders that names and patterns mean, each with its name.

    Raises:
        UserError: One means none.
    """
    found = []
    for each in map(str, named):
        path = Path(each)
        start = Path(path.anchor)
        paths = [path] if path.exists() else sorted(start.glob(str(path.relative_to(start))))
        folders = [path for path in paths if path.is_dir()]
        if not folders:
            raise UserError(
                "there is no such folder",
                where=each,
                expected="the folder of a run or study, or a pattern of such",
                hint="dure runs shows what there is",
            )
        found += [(each if len(folders) == 1 else str(folder), folder) for folder in folders]
    return found


def completed_runs(named: Sequence[str | Path]) -> tuple[list[LeftRun], list[str]]:
    """Return the runs in folders of runs and studies that completed, and a line about each of the others.

    Raises:
        UserError: A name means no folder, a folder holds no run, or a record in it is broken.
    """
    runs: dict[Path, LeftRun] = {}
    others: dict[Path, str] = {}
    for given, folder in folders_of(named):
        # Without what only keeps the experiment of the runs beneath it, or the model of one of them.
        found = [run for run in runs_in(folder) if run.environment.is_file()]
        around = {parent for run in found for parent in run.path.parents}
        trained = sorted(
            (run for run in found if run.metrics.is_file() or run.path not in around),
            key=lambda run: run.path,
        )
        if not trained:
            raise UserError(
                "it holds no run",
                where=given,
                expected="the folder of a run or study",
                hint="dure runs shows them",
            )
        for run in trained:
            result = run.read_result()
            if result is not None and result.state == "completed":
                runs.setdefault(run.path.resolve(), _read(run, given, result))
            else:
                state = "not ended" if result is None else result.state
                why = f": {result.error}" if result is not None and result.error else ""
                others[run.path.resolve()] = f"{shown_path(run.path)} is not compared: it is {state}{why}"
    return list(runs.values()), list(others.values())


def _read(run: RunFolder, given: str, result: RunResult) -> LeftRun:
    hashes = {split: str(content) for split, content in run.read_environment().get("data", {}).items()}
    return LeftRun(run.path, given, load_record(run.experiment), result, hashes)
