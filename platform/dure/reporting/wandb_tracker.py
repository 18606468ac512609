"""Tracking a run with Weights & Biases, in such a way that W&B can never stop or hold up the run."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dure.config.schema import Experiment
from dure.config.tracking import WandbConfig
from dure.errors import one_line
from dure.events import Notify, RunStart
from dure.files import write_text
from dure.reporting.tracker import LONGEST_REASON, Tracker, summary_of
from dure.runs.folder import RunResult

INIT_SECONDS = 6.0
"""Longest wait for the server when a run starts; after it the run is tracked offline."""

FINISH_SECONDS = 20.0
"""Longest wait for uploads when a run ends; what is not sent by then stays in the run's folder."""

_UPLOAD_HINT = "upload them with `wandb sync RUN/wandb/offline-run-*`"
_SERVICE_VARIABLE = "WANDB_SERVICE"
_MAX_TAG_LENGTH = 64


def tracker(experiment: Experiment) -> Tracker:
    """Return the tracker of a run."""
    return WandbTracker(experiment.wandb)


class WandbTracker(Tracker):
    """Sends one run to W&B: configuration, tags, metrics by step, system figures.

    Every run is its own W&B run with its own id, kept in the run's folder, so that runs may go side by side
    in several processes or one after another in one, and a resumed run goes on in its W&B run. Without a
    key or a server, W&B keeps its files in ``<run>/wandb`` for a later ``wandb sync``, and so it does when the server
    is lost while the run goes on. ``WANDB_MODE`` is respected.
    """

    label = "W&B"

    def __init__(self, config: WandbConfig) -> None:
        super().__init__()
        self._config = config
        self._run: Any = None
        self._is_online = False

    def open(self, start: RunStart, notify: Notify) -> bool:
        """Open the W&B run, or go on in the one that this folder already has."""
        if find_spec("wandb") is None:
            notify("W&B is off: its package is not installed; pip install 'dure[wandb]' brings it")
            return False
        mode, why = _mode()
        if mode == "disabled":
            return False
        try:
            run = self._init(start, mode)
        except Exception as error:
            # The id counts as taken until wandb's service, which holds the half-open run, has gone.
            _stop_service()
            run = self._init(start, "offline")
            mode, why = "offline", one_line(error)[:LONGEST_REASON]
        if mode == "offline":
            notify(f"W&B is offline ({why}): its files are in the folder wandb of each run; {_UPLOAD_HINT}")
        elif run.url:
            notify(f"W&B: {run.project_url or run.url}")
        self._is_online = mode == "online"
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        self._run = run
        return True

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Log the numbers.

        The step is a metric of its own and the charts' axis: W&B's internal step only grows, and would drop
        what a run logs again after it went back to its last checkpoint.
        """
        self._run.log({"step": step, "epoch": epoch, **values})

    def close(self, result: RunResult) -> None:
        """Put the result into the run's summary and close the run, so that the next one starts clean."""
        run, self._run = self._run, None
        run.summary.update(summary_of(result))
        began = time.monotonic()
        run.finish(exit_code=0 if result.state in ("completed", "stopped") else 1)
        # wandb says nothing of its own when it gives up.
        if self._is_online and time.monotonic() - began >= FINISH_SECONDS:
            self.notify(
                f"W&B did not take everything within {FINISH_SECONDS:.0f} s: what it lacks is in the folder "
                "wandb of the run; upload it with `wandb sync RUN/wandb/run-*`"
            )

    def broken(self) -> None:
        """Let go of the run and of wandb's service."""
        self._run = None
        _stop_service()

    def _init(self, start: RunStart, mode: Literal["online", "offline"]) -> Any:
        import wandb

        start.path.mkdir(parents=True, exist_ok=True)
        service_was_given = _SERVICE_VARIABLE in os.environ
        run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            dir=str(start.path),
            id=_run_id(start.path),
            name=start.name,
            group=start.group,
            # As W&B takes them: of at most 64 characters, none empty, none twice.
            tags=list(dict.fromkeys(tag[:_MAX_TAG_LENGTH] for tag in start.tags if tag)),
            config=dict(start.experiment),
            resume="allow",
            # Leaves `wandb.run` and other runs of this process alone.
            reinit="create_new",
            settings=wandb.Settings(
                mode=mode,
                silent=True,
                # Output is captured into the run's log already; a second capture would fight over the streams.
                console="off",
                init_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
            ),
        )
        if not service_was_given:
            # Child processes would use this process's service and lose it when this process ends.
            os.environ.pop(_SERVICE_VARIABLE, None)
        return run


def _mode() -> tuple[Literal["online", "offline", "disabled"], str]:
    """Return how W&B can be used here, and why when it is offline; asks nobody and prints nothing."""
    import wandb

    # Also silences what wandb prints before a run's own settings apply.
    settings = wandb.setup(wandb.Settings(silent=True, console="off")).settings
    wanted = os.environ.get("WANDB_MODE") or settings.mode
    if wanted == "disabled":
        return "disabled", ""
    if wanted in ("offline", "dryrun"):
        return "offline", "by WANDB_MODE or its settings file"
    try:
        if wandb.login(prompt=False, verify=False):
            return "online", ""
    except wandb.errors.AuthenticationError as error:
        return "offline", one_line(error)[:LONGEST_REASON]
    return "offline", "there is no API key"


def _stop_service() -> None:
    """End wandb's service process, so that the next run of this process gets a fresh one."""
    try:
        import wandb

        wandb.teardown()
    except (Exception, SystemExit):
        # Only called once W&B has failed, which is reported; wandb even ends the process when its service ended
        # badly, and that is no reason to end a training run.
        return


def _run_id(folder: Path) -> str:
    """Return the W&B id of the run in this folder, making it at the first call.

    It is random and not computed from the path: W&B never gives a deleted id free again.
    """
    file = folder / "wandb_id"
    known = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if known:
        return known
    fresh = uuid.uuid4().hex[:12]
    write_text(file, fresh + "\n")
    return fresh
