"""What ``training.compile`` asks of an experiment and of a machine."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from dure.config.schema import Experiment, Profile
from dure.data.collating import Batches
from dure.errors import UserError

OFF = "training.compile=false"
"""What does without all of it."""
_LENGTHS = 8
"""Padded lengths are rounded up to a multiple of it. A length of 1 would be a graph of its own, and on CUDA so would be
those that a kernel's loads do not divide."""


def check_compile(experiment: Experiment, profile: Profile) -> None:
    """Check that an experiment can be compiled on a kind of machine.

    Raises:
        UserError: What it is combined with cannot be.
    """
    if not experiment.training.compile:
        return
    against = {
        "layers in 4 bits (model.quantization) are not compiled": (
            experiment.model.quantization is not None,
            f"{OFF}, or model.quantization=null",
        ),
        f"DeepSpeed (deepspeed of profile {profile.name}) changes layers while they compute": (
            profile.deepspeed is not None,
            f"{OFF}, or a profile without deepspeed",
        ),
        f"on MPS (device of profile {profile.name}) layers are not compiled": (
            profile.device == "mps",
            f"{OFF}, or a profile of a CPU or of CUDA",
        ),
    }
    for problem, (is_so, expected) in against.items():
        if is_so:
            raise UserError(problem, where="training.compile", expected=expected)


def check_compiler(device: str) -> str:
    """Return the compiler of this machine: torch compiles with one of C++ for a CPU, with Triton and one of C for CUDA.

    Raises:
        UserError: Something is missing.
    """
    variable, usual = ("CXX", "g++") if device == "cpu" else ("CC", "gcc")
    if sys.platform == "darwin":
        usual = "clang++" if device == "cpu" else "clang"
    compiler = os.environ.get(variable) or usual
    path = shutil.which(compiler)
    if path is None:
        remedy = f"apt install {usual}, or name a compiler in the environment as {variable}"
        raise _missing(f"the compiler {compiler}", remedy)
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise _missing(
            "Python.h, which compiled code includes,",
            f"apt install python{sysconfig.get_python_version()}-dev",
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise _missing("triton", "pip install triton")
    return path


def in_lengths(batches: Batches, experiment: Experiment) -> Batches:
    """Return batches whose padded lengths suit compiled layers, when the experiment compiles them."""
    if experiment.training.compile:
        batches.multiple_of = math.lcm(batches.multiple_of, _LENGTHS)
    return batches


def _missing(what: str, remedy: str) -> UserError:
    return UserError(f"{what} is missing", where="training.compile", expected=OFF, hint=remedy)
