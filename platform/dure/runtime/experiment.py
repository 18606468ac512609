"""One experiment from the driver: as a run in this process, or on a cluster, followed and mirrored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.events import EventLog, RunListener, follow
from dure.files import write_text
from dure.runs.folder import RunFolder, RunResult, RunState, stored_experiment

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
    followers: Sequence[RunListener] = (),
    listeners: Sequence[RunListener] = (),
    layout: type[RunFolder] | None = None,
) -> RunResult:
    """Run one experiment as a Ray ``TorchTrainer`` and return its result.

    One worker trains in this process and needs no cluster; more workers, or an ``address``, use one.

    Args:
        experiment: What to run.
        profile: The machine.
        path: Folder of the run.
        resume: Continue what the folder holds.
        address: Ray cluster to join.
        followers: Who hears of the run here, in the driver, by its stream.
        listeners: Who is called in the process that trains, beside the experiment's trackers; they travel there.
        layout: How the folder is laid out, when it is not that of an ordinary run.

    Raises:
        UserError: The experiment, its data or the cluster is wrong.
        RunError: Training failed.
        Stopped: It ended in order because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    from dure.reporting.tracking import trackers_for
    from dure.runtime.fit import fit
    from dure.runtime.scratch import temporary_files
    from dure.signals import Stopped, stoppable
    from dure.storage.mirror import shared_folder
    from dure.training.run import RunRequest, one_line

    folder = RunFolder(path.resolve())
    shared = shared_folder(profile, path)
    if resume:
        experiment = stored_experiment(path, experiment)
        finished = _completed_earlier(path, shared, followers)
        if finished is not None:
            return finished
    write_text(folder.experiment, dump_yaml(experiment))
    logger.debug("profile:\n%s", dump_yaml(profile))
    logger.debug("experiment:\n%s", dump_yaml(experiment))
    events = EventLog(folder.events, "driver")

    def last_word(message: str) -> None:
        # Straight to whoever follows: the process ends then, and the way through a lost cluster is none.
        for follower in followers:
            follower.notified(message)
        events.notified(message)

    try:
        relays: list[Relay] = []
        with (
            temporary_files(),
            follow(folder.events, followers, relayed=lambda: _lines(relays)) as look,
            stoppable(path.resolve(), events.notified) as stop_file,
        ):
            request = RunRequest(
                experiment=experiment,
                profile=profile,
                path=path.resolve(),
                resume=resume,
                listeners=(*listeners, *trackers_for(experiment)),
                layout=layout or RunFolder,
                stop_file=stop_file,
                shared=shared,
            )
            if profile.trains_in_process and address is None:
                result = fit(request)
            else:
                events.notified(f"{profile.num_workers} worker(s) on a cluster; results in {path}")
                result = _fit_on_cluster(request, address, relays, look, last_word)
    except (Exception, KeyboardInterrupt) as error:
        state: RunState = "failed" if isinstance(error, Exception) else "interrupted"
        for follower in followers:
            follower.finished(RunResult(experiment.name, state, error=one_line(error)))
        raise
    for follower in followers:
        follower.finished(result)
    if result.state == "interrupted":
        raise Stopped
    return result


def _completed_earlier(
    path: Path, shared: SharedFolder | None, followers: Sequence[RunListener]
) -> RunResult | None:
    """Return the result of a run that came to its end before, whose mirror may lack it; None of any other."""
    finished = RunFolder(path).read_result()
    if finished is None or finished.state != "completed":
        return None
    for follower in followers:
        follower.notified(f"{finished.name}: completed earlier, so nothing is run; results in {path}")
    if shared is not None:
        mirror = shared.mirror(path.resolve())
        mirror.pull()
        mirror.push()
    return finished


def _lines(relays: Sequence[Relay]) -> Iterator[bytes]:
    """Give the lines that came from other nodes."""
    for relay in relays:
        for _, line in relay.received():
            yield line


def _fit_on_cluster(
    request: RunRequest,
    address: str | None,
    relays: list[Relay],
    look: Callable[[], None],
    last_word: Callable[[str], None],
) -> RunResult:
    """Run in worker processes of a cluster, joined or started here.

    Args:
        request: What to run.
        address: Ray cluster to join.
        relays: Gets what brings lines from other nodes, if there are some.
        look: Hands on what is new; called before the cluster ends.
        last_word: Gets what happened when the cluster is ended from outside.
    """
    from dure.runs.logs import captured_output
    from dure.runtime.cluster import cluster
    from dure.runtime.fit import fit
    from dure.runtime.placement import require_room
    from dure.runtime.relay import Relay

    experiment, profile = request.experiment, request.profile
    with (
        captured_output(request.path / "driver.log"),
        cluster(address, name=experiment.name, path=request.path, tell=last_word) as ray_cluster,
    ):
        require_room(profile, ray_cluster.nodes, experiment.training.batch_size)
        if relay := Relay.to_here():
            relays.append(relay)
            request = replace(request, relay=partial(relay.send, ""))
        try:
            return fit(request, in_process=False)
        finally:
            look()
