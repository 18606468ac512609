"""Running a study on Ray Tune: resources, failures, resumption and records for every strategy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import tune
from ray.air._internal import usage
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from dure.config.schema import Profile
from dure.events import SETTLED, StudyListener
from dure.runs.logs import captured_output
from dure.runtime.cluster import Cluster, cluster
from dure.runtime.fit import fit
from dure.runtime.placement import fitting_trials, trial_bundle
from dure.runtime.scratch import restored
from dure.secrets import CLOUD_SECRETS
from dure.signals import Interrupted, stoppable
from dure.studies.board import Board, trial_name
from dure.studies.strategy import Strategy
from dure.studies.trial import Listeners, Train, TrialRequests, named_trainable, run_trial, settled

# To count the board among callbacks, Ray's usage statistics import every tracker that is installed: 2.6 CPU seconds.
usage.tag_callbacks = lambda callbacks: False

_TUNE = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Records of training hold no validation metric, which a scheduler would otherwise insist on.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def run_study(
    strategy: Strategy[Any],
    *,
    profile: Profile,
    path: Path,
    follower: StudyListener | None = None,
    listeners: Listeners = lambda experiment: (),
    address: str | None = None,
    train: Train = fit,
) -> Any:
    """Run a study, or what is left of it, and return its record.

    A trial that is settled by the result in its folder is not run again; one with a checkpoint continues from it.
    ``listeners`` makes those of a trial, in the process that trains, and travels itself; the ``follower`` listens here
    in the driver. Without an ``address`` an own cluster is started and ended.

    Raises:
        UserError: The cluster does not answer, or cannot ever hold a trial.
        RunError: Ray does not start.
        Interrupted: It ended cleanly because of Ctrl-C or SIGTERM; the folder can be resumed.
    """
    board = Board(strategy, profile, path, follower or StudyListener())
    board.follower.started(strategy.study.name, path, board.statuses())
    try:
        with board.followed(), stoppable(path, board.notify) as board.stop_file:
            _run_pending(board, address, listeners, train)
    except Interrupted:
        board.follower.finished(board.results().as_json())
        raise
    results = board.results()
    board.follower.finished(results.as_json())
    return results


def _run_pending(board: Board, address: str | None, further: Listeners, train: Train) -> None:
    """Run what is not settled, on a cluster, and write the summary whatever happens."""
    strategy, path = board.strategy, board.path
    unsettled = [trial.name for trial in board.statuses() if trial.state not in SETTLED]
    pending = strategy.pending(unsettled)
    if len(unsettled) < len(board.plans):
        # A session that was killed may have left what it was about to remove.
        strategy.ended(board.statuses())
    board.forget_results(pending)
    with captured_output(path / strategy.log_file), board.summarised():
        if pending:
            own = strategy.listeners()
            board.notify("Ray is starting" if address is None else f"joining the cluster at {address}")
            with cluster(address, name=strategy.study.name, path=path) as ray_cluster:
                if ray_cluster.dashboard_url:
                    board.notify(f"Ray dashboard: {ray_cluster.dashboard_url}")
                requests = TrialRequests(
                    study=strategy.study.name,
                    profile=board.profile,
                    path=path,
                    plans=board.plans,
                    listeners=lambda experiment: (*own, *further(experiment)),
                    keeps_predictions=strategy.keeps_predictions,
                    keeps_dev_losses=strategy.keeps_dev_losses,
                    mlflow_uri=strategy.mlflow_uri,
                    stop_file=board.stop_file,
                    session=board.session,
                    shared=board.shared,
                    relay=board.relay_from_others(),
                    train=train,
                )
                _fit(board, pending, requests, ray_cluster)
            board.stop_if_asked()


def _fit(board: Board, pending: Sequence[str], requests: TrialRequests, ray_cluster: Cluster) -> None:
    strategy, profile, name = board.strategy, board.profile, board.strategy.study.name
    side_by_side = fitting_trials(profile, ray_cluster.nodes)
    settings = strategy.tune_settings(side_by_side)
    if side_by_side > 1:
        pending = strategy.longest_first(pending)
    nested = not profile.trains_in_process
    function = tune.with_resources(
        tune.with_parameters(settled, requests=requests, run=strategy.trainable() or run_trial),
        tune.PlacementGroupFactory([trial_bundle(profile)]),
    )
    tuner = tune.Tuner(
        named_trainable(function, name, one_trial_each=nested),
        param_space={} if "search_alg" in settings else {"trial": tune.grid_search(list(pending))},
        tune_config=tune.TuneConfig(
            reuse_actors=not nested,
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
            **settings,
        ),
        run_config=tune.RunConfig(
            name=f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}",
            storage_path=str((board.path / ".ray_tune").resolve()),
            failure_config=tune.FailureConfig(max_failures=profile.max_restarts),
            callbacks=[board],
            verbose=0,
        ),
    )
    # Tune would write the driver's keys into Ray's logs; processes have those of their node's environment.
    ENV_VARS_TO_PROPAGATE.difference_update(CLOUD_SECRETS)
    with restored(*_TUNE):
        os.environ.update(_TUNE)
        board.notify(
            "Ray is up; the processes of the first trials start and import, which takes some seconds"
        )
        tuner.fit()
