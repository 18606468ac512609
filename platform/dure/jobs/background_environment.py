"""The environment of a background job: that of the shell which asked for it, in every process of the job.

Ray shows the variables of a job's runtime environment to everybody who may list jobs, and tokens are among them. So
they travel in a file that only its owner can read, whose name Ray is reported. The command reads it when it begins, and
Ray calls :func:`load` in every process that works for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dure.files import read_json

FILE = "DURE_ENVIRONMENT"
"""Environment variable: the file with that job's environment."""
HOOK = "dure.jobs.background_environment.load"
# What Ray decides for each of its processes, and what marks a cluster's.
_NOT_HANDED_ON = (
    "RAY_",
    "DURE_CLUSTER",
    "DURE_JOB",
    "DURE_ENVIRONMENT",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "PWD",
)


def handed_on(environment: Mapping[str, str], folder: Path) -> dict[str, object]:
    """Return what the file holds of an environment, and of the folder that the command was given in."""
    values = {
        name: value
        for name, value in environment.items()
        if name != "_" and not name.startswith(_NOT_HANDED_ON)
    }
    return {"folder": str(folder), "values": values}


def enter() -> None:
    """Take on the environment of the command, when this process is that of a background job."""
    if FILE in os.environ:
        load()


def load() -> None:
    """Make this process's environment and working folder those that the command was given in."""
    found = read_json(Path(os.environ[FILE]), what="environment of a background job")
    os.environ.update(found["values"])
    os.chdir(found["folder"])
