"""What a run ran on: versions, source, machine, seed and data, for ``environment.json``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from dure.config.schema import Experiment, Profile
from dure.imports import version_of

_PACKAGES = (
    "dure", "torch", "transformers", "ray", "peft", "accelerate", "bitsandbytes", "deepspeed", "datasets",
    "tokenizers", "kiwipiepy", "rouge-score", "optuna", "wandb", "tensorboard", "mlflow-skinny", "numpy",
)  # fmt: skip


def describe_environment(
    experiment: Experiment,
    profile: Profile,
    *,
    data: Mapping[str, str],
    split: Mapping[str, Any] | None = None,
    recognised: Mapping[str, str],
    num_workers: int,
) -> dict[str, Any]:
    """Return what somebody needs to know to run it again.

    ``data`` has the content hash of every split's table, ``split`` how the training table was cut into them, and
    ``recognised`` what that table decided.
    """
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := version_of(name))},
        "git": _git(Path.cwd()),
        "profile": profile.model_dump(mode="json"),
        "device": device_name(profile.device),
        "num_workers": num_workers,
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_mb": psutil.virtual_memory().total // (1024 * 1024),
        "seed": experiment.experiment.seed,
        "data": dict(data),
        **({"split": dict(split)} if split else {}),
        **({"recognised": dict(recognised)} if recognised else {}),
    }


def device_name(device: str) -> str:
    """Return the name of the device that trains, as its maker gives it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return "Apple GPU" if device == "mps" else platform.processor() or platform.machine()


def _git(folder: Path) -> dict[str, Any] | None:
    """Return commit and cleanliness of the working folder's repository, or None outside one."""

    def ask(*words: str) -> str | None:
        try:
            # Names of files that are no text in this locale are told too, where git is set up to quote none.
            answer = subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, errors="replace", timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "clean": ask("status", "--porcelain") == ""}
