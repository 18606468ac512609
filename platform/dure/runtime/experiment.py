"""One experiment from the driver: as a run in this process, or on a cluster, told and mirrored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dure.config.loading import dump_yaml
from dure.config.schema import Experiment, Profile
from dure.events import RunListener
from dure.files import write_text
from dure.runs.folder import RunFolder, RunResult

logger = logging.getLogger(__name__)


def train(
    experiment: Experiment,
    *,
    profile: Profile,
    path: Path,
    resume: bool = False,
    address: str | None = None,
    listeners: Sequence[RunListener] = (),
    companions: Sequence[RunListener] = (),
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
        listeners: Who is told of progress here, in the driver.
        companions: Who is told of it where the training is; they travel.
        layout: How the folder is laid out, when it is not that of an ordinary run.

    Raises:
        UserError: The experiment, its data or the cluster is wrong.
        RunError: Training failed.
        Stopped: It ended in order because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    from dure.reporting.tracking import tracker_for
    from dure.runs.folder import RunFolder
    from dure.runs.logs import captured_output
    from dure.runtime.cluster import cluster
    from dure.runtime.fit import fit
    from dure.runtime.follow import following
    from dure.runtime.placement import require_room
    from dure.signals import Stopped, stoppable
    from dure.storage.mirror import shared_folder
    from dure.training.run import RunRequest

    folder = RunFolder(path)
    shared = shared_folder(profile, path)
    if resume:
        from dure.runs.folder import stored_experiment

        experiment = stored_experiment(path, experiment)
        finished = folder.read_result()
        if finished is not None and finished.state == "completed":
            for listener in listeners:
                listener.told(f"{finished.name}: completed earlier, so nothing is run; results in {path}")
            if shared is not None:
                mirror = shared.mirror(path.resolve())
                mirror.pull()
                mirror.push()
            return finished
    write_text(folder.experiment, dump_yaml(experiment))
    logger.debug("profile:\n%s", dump_yaml(profile))
    logger.debug("experiment:\n%s", dump_yaml(experiment))

    def tell(message: str) -> None:
        for listener in listeners:
            listener.told(message)

    with stoppable(path.resolve(), tell) as stop_file:
        request = RunRequest(
            experiment=experiment,
            profile=profile,
            path=path.resolve(),
            resume=resume,
            listeners=(*listeners, *companions, tracker_for(experiment)),
            layout=layout or RunFolder,
            stop_file=stop_file,
            shared=shared,
        )
        if profile.trains_in_process and address is None:
            result = fit(request)
        else:
            tell(f"{experiment.name}: {profile.num_workers} worker(s) on a cluster; results in {path}")
            # The console's terminal does not travel to the workers: it follows their records instead.
            travelling = replace(request, listeners=request.listeners[len(listeners) :])
            with (
                captured_output(path / "driver.log"),
                cluster(address, name=experiment.name) as ray_cluster,
                following(folder.metrics, listeners),
            ):
                require_room(profile, ray_cluster.nodes, experiment.training.batch_size)
                result = fit(
                    travelling, in_process=False, tell=lambda line: tell(f"{experiment.name}: {line}")
                )
            for listener in listeners:
                listener.finished(result)
    if result.state == "interrupted":
        raise Stopped
    return result
