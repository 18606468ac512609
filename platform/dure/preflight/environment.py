"""Whether this machine has what a run needs: Python, packages, device, number formats, folders."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import dure
from dure.config.schema import Experiment, Profile
from dure.errors import UserError, named
from dure.files import existing, in_bytes
from dure.imports import version_of
from dure.preflight.checks import CannotTellError, Checklist, Note
from dure.reporting.figures import memory

OLDEST_PYTHON = (3, 11)
_IMPORTED = (
    *("numpy", "pyarrow", "torch", "transformers", "tokenizers", "safetensors"),
    *("datasets", "accelerate", "peft", "kiwipiepy", "ray", "ray.train", "ray.tune"),
)
"""What every run imports; that a package is installed does not say that it loads."""
_MIB = 1024**2


def check_installation(checklist: Checklist) -> None:
    """Check Python and packages; what does not import is kept in ``checklist.missing``."""
    checklist.run("environment", "python", python)
    checklist.run("environment", "packages", packages)
    missing: list[str] = []
    checklist.run("environment", "imports", imports, missing=missing)
    checklist.missing = frozenset(name.partition(".")[0] for name in missing)
    checklist.run("environment", "ray dashboard", ray_dashboard)


def check_machine(
    checklist: Checklist, profile: Profile | None, experiment: Experiment | None, output: Path
) -> None:
    """Check device, number format, the packages that an experiment and a profile ask for, and folders."""
    if profile is not None:
        checklist.run("environment", "device", device, profile=profile)
        checklist.run("environment", "precision", precision, profile=profile, experiment=experiment)
        if experiment is not None and experiment.model.quantization is not None:
            checklist.run("environment", "4-bit weights", quantization, profile=profile)
        if experiment is not None and experiment.training.compile:
            checklist.run("environment", "compiler", compiler, profile=profile)
        if profile.deepspeed is not None:
            checklist.run("environment", "deepspeed", deepspeed, settings=str(profile.deepspeed))
    checklist.run("environment", "cache folder", cache)
    checklist.run("environment", "output folder", writable, folder=output)
    checklist.run("environment", "leftover clusters", leftover_clusters)
    checklist.run("environment", "Korean font", korean_font)


def python(note: Note) -> None:
    """Check the version of Python."""
    note.found = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise UserError(note.found, expected=f"Python {oldest} or newer", hint="make setup PYTHON=python3.11")


def packages(note: Note) -> None:
    """Check that every package that dure declares is installed, in a version that it declares.

    Where ``constraints.txt`` of the sources is at hand, versions that differ from it are reported; they are no failure.
    """
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in importlib.metadata.requires("dure") or ()]
    except importlib.metadata.PackageNotFoundError:
        raise CannotTellError(
            "dure runs from its sources and is not installed, so what it needs is not declared",
            "pip install -e . -c constraints.txt",
        ) from None
    needed = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    problems, installed = [], {}
    for requirement in needed:
        version = installed[requirement.name] = version_of(requirement.name)
        if version is None:
            problems.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if problems:
        raise UserError("; ".join(problems), hint="pip install -e . -c constraints.txt")
    note.found = f"{len(needed)} packages as declared: " + ", ".join(
        f"{name} {installed[name]}" for name in ("torch", "transformers", "ray") if installed.get(name)
    )
    if differing := _off_the_pins({name: version or "" for name, version in installed.items()}):
        note.found += f"; tested with other versions: {', '.join(differing)}"
        note.remedy = "pip install -c constraints.txt … gives the tested ones"


def _off_the_pins(installed: Mapping[str, str]) -> list[str]:
    """Return the packages whose version is not the one of ``constraints.txt`` beside the sources, if there is one."""
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    file = Path(str(dure.__file__)).parents[2] / "constraints.txt"
    if not file.is_file():
        return []
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    return [
        f"{name} {version} for {pin}"
        for name, version in installed.items()
        if (pin := pins.get(canonicalize_name(name))) and Version(version).public != pin
    ]


def imports(note: Note, missing: list[str]) -> None:
    """Check that what every run imports can be imported; the names of what cannot are added to ``missing``."""
    reasons = []
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # A library that is not there may stop an import with almost any error.
            missing.append(name)
            reasons.append(f"{name} ({named(error, 120)})")
    if reasons:
        raise UserError(
            f"cannot be imported: {'; '.join(reasons)}", hint="pip install -e . -c constraints.txt"
        )
    note.found = f"{len(_IMPORTED)} modules import"


def ray_dashboard(note: Note) -> None:
    """Check that Ray came with its dashboard, without which it does not free the resources of nested trainers."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in importlib.metadata.requires("ray") or ()]
    except importlib.metadata.PackageNotFoundError:
        raise UserError("ray is missing", hint="pip install 'ray[default,train,tune]'") from None
    extra = [
        each.name
        for each in declared
        if each.marker is not None
        and each.marker.evaluate({"extra": "default"})
        and not each.marker.evaluate({"extra": ""})
    ]
    lacking = [name for name in extra if version_of(name) is None]
    if lacking:
        raise UserError(
            f"Ray is installed without its dashboard: {', '.join(lacking)} missing",
            hint="pip install 'ray[default,train,tune]'",
        )
    note.found = f"ray {version_of('ray')} with its dashboard"


def device(note: Note, profile: Profile) -> None:
    """Check that the device of the profile is here, and as many of it as one trial takes."""
    import torch

    from dure.runs.environment import device_name
    from dure.runtime.placement import require_device

    require_device(profile)
    where = f"profile {profile.name}"
    cores, wanted = os.cpu_count() or 1, profile.num_workers * profile.cpus_per_worker
    if profile.num_workers > 1 and wanted > cores:
        raise UserError(
            f"one trial takes {wanted:g} CPU cores, and here are {cores}",
            where=where,
            hint="a profile with fewer workers, or fewer cpus_per_worker",
        )
    note.found = f"{device_name(profile.device)}, {cores} CPU cores"
    if profile.device != "cuda":
        return
    count, needed = torch.cuda.device_count(), math.ceil(profile.num_workers * profile.gpus_per_worker)
    if needed > count:
        raise UserError(
            f"one trial takes {needed} GPUs, and here are {count}",
            where=where,
            hint="a profile with fewer workers, or --address of a cluster for the run",
        )
    total = torch.cuda.get_device_properties(0).total_memory
    note.found = f"{count} × {note.found}, {memory(total / _MIB)} each"
    if profile.memory_mb is not None and total < profile.memory_mb * _MIB:
        note.found += f"; the profile says {memory(profile.memory_mb)}"
        note.remedy = "a profile for a smaller card"


def precision(note: Note, profile: Profile, experiment: Experiment | None) -> None:
    """Check that the device computes in the number format that the run will take."""
    import torch

    from dure.modeling.precision import resolve, weights_dtype

    _require_here(profile)
    asked = "auto" if experiment is None else experiment.training.precision
    kind = "" if experiment is None else experiment.model.architecture or ""
    told: list[str] = []
    chosen = resolve(asked, profile, kind, told.append)
    where = f"profile {profile.name}" if asked == "auto" else "training.precision"
    if (
        chosen == "bf16"
        and profile.device == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(
            f"{torch.cuda.get_device_name()} has no bf16",
            where=where,
            expected="fp32",
            hint="training.precision=fp32",
        )
    values = torch.ones(8, 8, dtype=weights_dtype(chosen, frozen=True), device=profile.device)
    if float((values @ values).sum()) != 512:
        raise UserError(f"{profile.device} computes wrong numbers in {chosen}", where=where)
    note.found = "; ".join((f"{chosen} works on {profile.device}", *told))
    if chosen == "bf16" and profile.device == "cpu":
        note.remedy = "training.precision=fp32 is faster on most CPUs"


def _require_here(profile: Profile) -> None:
    """Leave a check of the profile's device to a machine that has it."""
    from dure.runtime.placement import require_device

    try:
        require_device(profile)
    except UserError:
        raise CannotTellError(f"there is no {profile.device} device here") from None


def quantization(note: Note, profile: Profile) -> None:
    """Check that bitsandbytes packs weights into 4 bits on the device of the profile."""
    if not profile.quantization:
        note.found = f"profile {profile.name} has none: LoRA on full weights instead"
        return
    import torch

    _require_here(profile)
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except Exception as error:  # bitsandbytes raises its own kinds where its native library does not load
        raise UserError(
            f"bitsandbytes cannot be imported ({named(error, 120)})",
            where="model.quantization",
            hint="pip install bitsandbytes, or model.quantization=null for LoRA on full weights",
        ) from None
    weights = torch.linspace(-1, 1, 64 * 64, device=profile.device).reshape(64, 64)
    packed, state = quantize_4bit(weights, quant_type="nf4")
    missed = float((dequantize_4bit(packed, state) - weights).abs().mean())
    # Sixteen levels over [-1, 1] miss by a thirtieth on average when the kernel is right.
    if not missed < 0.1:
        raise UserError(
            f"bitsandbytes packs wrongly on {profile.device} (mean error {missed:.3f})",
            hint="another version of bitsandbytes, or model.quantization=null",
        )
    note.found = f"bitsandbytes {version_of('bitsandbytes')} packs on {profile.device}"


def compiler(note: Note, profile: Profile) -> None:
    """Check that layers can be compiled here."""
    from dure.training.compiler import check_compiler

    note.found = f"compiles with {check_compiler(profile.device)}"


def deepspeed(note: Note, settings: str) -> None:
    """Check that DeepSpeed is there for a profile that names settings of it."""
    version = version_of("deepspeed")
    if version is None or importlib.util.find_spec("deepspeed") is None:
        raise UserError(
            "deepspeed is missing",
            where=f"settings {settings} of the profile",
            hint="pip install deepspeed, or a profile without it",
        )
    note.found = f"deepspeed {version} for {settings}"


def cache(note: Note) -> None:
    """Check that the cache of tables can be written to."""
    from dure.family.corpus import cache_folder

    writable(note, cache_folder())


def writable(note: Note, folder: Path) -> None:
    """Check that files can be written into a folder, or into the one above it that is there; nothing is left there."""
    there = existing(folder)
    if not there.is_dir():
        raise UserError("this is a file", where=str(there), expected="a folder")
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"dure")
    except OSError as error:
        raise UserError(
            f"nothing can be written there ({error.strerror})",
            where=str(there),
            hint="another folder (--output, or DURE_CACHE for the cache), or its permissions",
        ) from None
    note.found = f"{folder} can be written to; {in_bytes(shutil.disk_usage(there).free)} free"


def leftover_clusters(note: Note) -> None:
    """Check that no cluster is left of a run that was killed: it makes the next start misbehave."""
    from dure.runtime.guard import clusters_here

    found = clusters_here()
    left = [pid for cluster in found if not cluster.is_guarded for pid in cluster.pids]
    if left:
        raise UserError(
            f"{len(left)} processes are left of a run of dure that was killed",
            hint=f"kill {' '.join(map(str, left))}",
        )
    note.found = f"none; {len(found)} in use now" if found else "none"


def korean_font(note: Note) -> None:
    """Say whether pictures can have Korean labels; without a font they have English ones."""
    from dure.reporting.plots import hangul_font

    font = hangul_font()
    note.found = font or "none: pictures are labelled in English"
    if font is None:
        note.remedy = "install a font such as fonts-nanum for Korean labels"
