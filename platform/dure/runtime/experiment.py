"""One experiment from the driver: as a run in this process, or on a cluster, followed and mirrored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.errors import RunError, UserError, one_line
from dure.events import EventLog, Notify, RunListener, follow
from dure.files import remove_leftovers, write_text
from dure.reporting.page import page_attempted
from dure.runs import checkpoints
from dure.runs.folder import STUDY_FILE, RunFolder, RunResult, RunState
from dure.runs.lock import held
from dure.runs.resuming import require_continuable, started_with

if TYPE_CHECKING:
    from dure.runtime.relay import Relay
    from dure.storage.mirror import SharedFolder
    from dure.training.run import RunRequest

logger = logging.getLogger(__name__)


def train(
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    address: str | None = None,
    follower: RunListener | None = None,
    listeners: Sequence[RunListener] = (),
    layout: type[RunFolder] = RunFolder,
) -> RunResult:
    """Run one experiment as a Ray ``TorchTrainer`` and return its result.

    One worker trains in this process and needs no cluster; more workers, or an ``address``, use one.

    Args:
        experiment: What to run; of a run that goes on, all that changes numbers as it was, but for more epochs.
        profile: The machine.
        path: Folder of the run; nobody else works in it meanwhile.
        resume: Continue what the folder holds.
        address: Ray cluster to join.
        follower: Listens to the run here, in the driver, by its stream.
        listeners: Who is called in the process that trains, beside the experiment's trackers; they travel there.
        layout: How the folder is laid out, when it is not that of an ordinary run.

    Raises:
        UserError: The experiment, its data or the cluster is wrong.
        RunError: Training failed.
        Interrupted: It ended cleanly because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    from dure.reporting.tracker import trackers_for
    from dure.storage.mirror import shared_folder
    from dure.training.run import RunRequest

    follower = follower or RunListener()
    with held(path):
        shared = shared_folder(profile, path)
        if resume:
            finished = _taken_up(experiment, path, layout, shared, follower.notified)
            if finished is not None:
                return finished
        request = RunRequest(
            experiment=experiment,
            profile=profile,
            path=path.resolve(),
            resume=resume,
            listeners=(*listeners, *trackers_for(experiment)),
            layout=layout,
            shared=shared,
        )
        try:
            result = _followed(request, address, follower)
        except RunError:
            _report(path, shared, follower.notified)
            raise
        _report(path, shared, follower.notified)
        return result


def _report(path: Path, shared: SharedFolder | None, notify: Notify) -> None:
    """Write curves and page of a run that trained; a run that is over does not fail for them.

    That of a study has a page for all of it.
    """
    from dure.pages.run_page import leave_run_report

    if (path / STUDY_FILE).is_file() or not RunFolder(path).metrics.is_file():
        return
    with page_attempted(path, notify):
        leave_run_report(path)
        if shared is not None:
            shared.mirror(path.resolve()).push()


def _followed(request: RunRequest, address: str | None, follower: RunListener) -> RunResult:
    """Run what is asked for, in this process or on a cluster, and pass its events and its end to the follower."""
    from dure.runtime.fit import fit
    from dure.runtime.scratch import temporary_files
    from dure.signals import Interrupted, stoppable

    experiment, profile, folder = request.experiment, request.profile, RunFolder(request.path)
    write_text(folder.experiment, dump_yaml(experiment))
    logger.debug("profile:\n%s", dump_yaml(profile))
    logger.debug("experiment:\n%s", dump_yaml(experiment))
    events = EventLog(folder.events, "driver")
    try:
        relays: list[Relay] = []
        with (
            temporary_files(),
            follow(
                folder.events,
                follower,
                relayed=lambda: [line for relay in relays for _, line in relay.received()],
            ) as look,
            stoppable(request.path, events.notified) as stop_file,
        ):
            request = replace(request, stop_file=stop_file)
            if profile.trains_in_process and address is None:
                result = fit(request)
            else:
                events.notified(f"{profile.num_workers} worker(s) on a cluster; results in {request.path}")
                result = _fit_on_cluster(request, address, relays, look)
    except (Exception, KeyboardInterrupt) as error:
        state: RunState = "failed" if isinstance(error, Exception) else "interrupted"
        follower.finished(RunResult(experiment.name, state, error=one_line(error)))
        raise
    follower.finished(result)
    if result.state == "interrupted":
        raise Interrupted
    return result


def _taken_up(
    experiment: Experiment,
    path: Path,
    layout: type[RunFolder],
    shared: SharedFolder | None,
    notify: Notify,
) -> RunResult | None:
    """Set a folder in order for what goes on in it; returns the result of a run that is over and stays so."""
    from dure.family.same_rows import require_same_rows

    before = started_with(path)
    is_longer = require_continuable(path, experiment, may_be_longer=True)
    require_same_rows(experiment, path)
    if before is None or not is_longer:
        remove_leftovers(path)
        return _completed_earlier(path, shared, notify)
    require_more_to_train(layout(path))
    # Before the experiment is written: whoever finds both would take the result for that of the longer run.
    RunFolder(path).result.unlink(missing_ok=True)
    remove_leftovers(path)
    epochs = f"{before.training.epochs} → {experiment.training.epochs} epochs"
    notify(
        f"{experiment.name}: trained longer ({epochs}); its learning-rate schedule ({experiment.training.scheduler}) "
        "is computed anew over all of them and goes on at its place in there, so a rate that had come down rises "
        "again: the figures are not those of a run that was that long from the start"
    )
    return None


def require_more_to_train(folder: RunFolder) -> None:
    """Check that a run can be trained longer, should it be over.

    Raises:
        UserError: It cannot.
    """
    finished = folder.read_result()
    if finished is None or finished.state != "completed":
        return
    last = checkpoints.last_checkpoint(folder.checkpoints)
    if last is None:
        raise UserError(
            "the run is finished and its checkpoints are gone, so that it cannot be trained longer",
            where=str(folder.checkpoints),
            expected="its newest checkpoint",
            hint="a new run without --resume, with as many epochs from the start",
        )
    if checkpoints.ended_early(last):
        raise UserError(
            f"the run ended early at {last.name}, since its validations had not improved for too long: more epochs "
            "change nothing",
            where=str(folder.path),
            hint="a new run without --resume, with another training.early_stopping_patience",
        )


def _completed_earlier(path: Path, shared: SharedFolder | None, notify: Notify) -> RunResult | None:
    """Return the result of a run that came to its end before, whose mirror may lack it; None of any other."""
    finished = RunFolder(path).read_result()
    if finished is None or finished.state != "completed":
        return None
    notify(f"{finished.name}: completed earlier, so nothing is run; results in {path}")
    if shared is not None:
        mirror = shared.mirror(path.resolve())
        mirror.pull()
        mirror.push()
    return finished


def _fit_on_cluster(
    request: RunRequest,
    address: str | None,
    relays: list[Relay],
    look: Callable[[], None],
) -> RunResult:
    """Run in worker processes of a cluster, joined or started here.

    ``relays`` gets what brings lines from other nodes, and ``look`` hands on what is new before the cluster ends.
    """
    from dure.runs.logs import captured_output
    from dure.runtime.cluster import cluster
    from dure.runtime.fit import fit
    from dure.runtime.placement import require_room
    from dure.runtime.relay import Relay

    experiment, profile = request.experiment, request.profile
    with (
        captured_output(request.path / "driver.log"),
        cluster(address, name=experiment.name, path=request.path) as ray_cluster,
    ):
        require_room(profile, ray_cluster.nodes, experiment.training.batch_size)
        if relay := Relay.to_here():
            relays.append(relay)
            request = replace(request, relay=partial(relay.send, ""))
        try:
            return fit(request, in_process=False)
        finally:
            look()
