"""The faults that ``make faults`` injects: what happens, and to which study."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.faults import (
    AGENT,
    CONTROLLER,
    DASHBOARD_AGENT,
    GCS,
    RAYLET,
    TRIAL,
    WORKER,
    checkpoint_broken,
    disk_full,
    driver_killed,
    empty,
    flip,
    killed_before_the_end,
    killed_while_saving,
    killed_within,
    process_killed,
    ray_killed,
    records_torn,
    remove,
    stopped,
    sweep_trial_killed,
    tracking_lost,
    truncate,
)
from tests.faults.outside import (
    cache_changed,
    folder_removed,
    killed_at_a_result,
    killed_at_random,
    second_command,
    second_command_while_suspended,
    suspended,
)
from tests.faults.scene import Scene


@dataclass(frozen=True)
class Fault:
    """Something that really happens."""

    study: str
    """Name of the study that it happens to."""
    name: str
    """What happens."""
    happen: Callable[[Scene], None]
    """Disturbs a scene, and brings it to its end."""
    intervals: int = 1
    """Checkpoint intervals of work that may be done again, and at most one more."""


FAULTS = (
    Fault("train", "command killed (SIGKILL)", driver_killed),
    Fault("train", "SIGTERM", stopped(signal.SIGTERM)),
    Fault("train", "Ctrl-C", stopped(signal.SIGINT)),
    Fault("train", "Ctrl-C twice", stopped(signal.SIGINT, twice=True)),
    Fault("train", "killed while saving a checkpoint", killed_while_saving),
    Fault("train", "killed after the last step", killed_before_the_end),
    Fault("train", "killed, half a line of records", records_torn),
    Fault("train", "newest checkpoint truncated", checkpoint_broken(truncate), intervals=2),
    Fault("train", "a byte of the newest checkpoint changed", checkpoint_broken(flip), intervals=2),
    Fault("train", "optimizer state of the newest checkpoint empty", checkpoint_broken(empty), intervals=2),
    Fault("train", "optimizer state of the newest checkpoint gone", checkpoint_broken(remove), intervals=2),
    Fault("train", "disk full for a while", disk_full(stop=False)),
    Fault("train", "disk full, stopped, freed", disk_full(stop=True)),
    Fault("train", "W&B unreachable", tracking_lost),
    Fault("workers", "first worker killed", process_killed(WORKER, 0)),
    Fault("workers", "second worker killed", process_killed(WORKER, 1)),
    Fault("workers", "Ray Train's controller killed", process_killed(CONTROLLER)),
    Fault("workers", "command killed (SIGKILL)", driver_killed),
    Fault("workers", "SIGTERM", stopped(signal.SIGTERM)),
    Fault("workers", "raylet killed", ray_killed(RAYLET)),
    Fault("workers", "Ray's runtime agent killed", ray_killed(AGENT)),
    Fault("batch", "trial's process killed", process_killed(TRIAL)),
    Fault("batch", "command killed (SIGKILL)", driver_killed),
    Fault("batch", "SIGTERM", stopped(signal.SIGTERM)),
    Fault("batch", "raylet killed", ray_killed(RAYLET)),
    Fault("batch", "Ray's control service killed", ray_killed(GCS)),
    Fault("batch", "Ray's runtime agent killed", ray_killed(AGENT)),
    Fault("batch", "Ray's dashboard agent killed", ray_killed(DASHBOARD_AGENT)),
    Fault("batch", "newest checkpoint of a trial truncated", checkpoint_broken(truncate), intervals=2),
    Fault("sweep", "trial's process killed", process_killed(TRIAL)),
    Fault("sweep", "command killed (SIGKILL)", driver_killed),
    Fault("sweep", "SIGTERM", stopped(signal.SIGTERM)),
    Fault("progressive", "trial's process killed", process_killed(TRIAL)),
    Fault("progressive", "command killed (SIGKILL)", driver_killed),
    Fault("progressive", "SIGTERM", stopped(signal.SIGTERM)),
    Fault("crossval", "fold's process killed", process_killed(TRIAL)),
    Fault("crossval", "command killed (SIGKILL)", driver_killed),
    Fault("crossval", "Ctrl-C", stopped(signal.SIGINT)),
    Fault("crossval", "raylet killed", ray_killed(RAYLET)),
    Fault("unified", "killed in the sweep", killed_within("lr_sweep/*/metrics.jsonl")),
    Fault("unified", "killed in the training", killed_within("checkpoints_final/checkpoint_epoch_0001*")),
    Fault("unified", "SIGTERM in the training", stopped(signal.SIGTERM)),
    Fault("unified", "trial's process killed in the sweep", sweep_trial_killed),
    Fault("train", "suspended (SIGSTOP) for a while", suspended()),
    Fault("train", "a second command on the folder", second_command),
    Fault("train", "a second command while suspended, then killed", second_command_while_suspended),
    Fault("train", "folder removed", folder_removed),
    Fault("train", "token ids of the cache changed", cache_changed),
    Fault("batch", "trial's process suspended (SIGSTOP) for a while", suspended(TRIAL)),
    Fault("batch", "killed between a trial's result and its clean-up", killed_at_a_result),
    Fault("batch", "disk full, stopped, freed", disk_full(stop=True)),
    Fault("sweep", "killed between a trial's result and its clean-up", killed_at_a_result),
    Fault("sweep", "folder removed", folder_removed),
    Fault("sweep", "disk full for a while", disk_full(stop=False)),
    Fault("seq2seq", "killed at five random moments, seed 1", killed_at_random(1)),
    Fault("seq2seq", "killed at five random moments, seed 2", killed_at_random(2)),
    Fault("seq2seq", "killed at five random moments, seed 3", killed_at_random(3)),
    Fault("seq2seq", "killed at five random moments, seed 4", killed_at_random(4)),
    Fault("comparison", "fold's process killed", process_killed(TRIAL)),
    Fault("comparison", "command killed (SIGKILL)", driver_killed),
    Fault("comparison", "killed between a fold's result and its clean-up", killed_at_a_result),
    Fault("candidates", "trial's process killed", process_killed(TRIAL)),
    Fault("candidates", "command killed (SIGKILL)", driver_killed),
)
