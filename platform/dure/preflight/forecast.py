"""Whether memory and disk suffice for what a run is foretold to take."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from dure.config import library
from dure.config.loading import load_profile
from dure.config.schema import Profile
from dure.errors import UserError
from dure.preflight.checks import Note
from dure.preflight.environment import amount, existing
from dure.runs.forecast import Forecast


def check_memory(note: Note, foretold: Forecast, profile: Profile) -> None:
    """Check that weights, gradients and moments fit into the memory that is free."""
    free, where = _free_memory(profile)
    workers = profile.num_workers if profile.device == "cpu" else 1
    needed = foretold.memory * workers
    parts = [
        f"{amount(size)} of {name}"
        for name, size in (
            ("weights", foretold.weights),
            ("gradients", foretold.gradients),
            ("moments", foretold.moments),
            ("average", foretold.average),
        )
        if size
    ]
    shares = f" for each of {workers} workers" if workers > 1 else ""
    note.found = (
        f"{amount(needed)} of {amount(free)} {where} ({' + '.join(parts)}{shares}); activations come on top"
    )
    if needed <= free:
        return
    if profile.deepspeed is not None:
        note.found += "; DeepSpeed shares this out or offloads it"
        return
    offloading = _offloading(profile.device)
    raise UserError(
        note.found,
        hint="a lora section, a smaller model, a profile with a larger device"
        + (
            f", or --profile {' or '.join(offloading)}, which uses the computer's memory too"
            if offloading
            else ""
        ),
    )


def _offloading(device: str) -> list[str]:
    """Return the profiles of a device by which DeepSpeed keeps the optimizer in the computer's memory."""
    profiles = {name: load_profile(name) for name in library.available("profile")}
    return [
        name
        for name, each in profiles.items()
        if each.device == device and each.deepspeed is not None and "offload" in each.deepspeed
    ]


def check_disk(note: Note, foretold: Forecast, folder: Path) -> None:
    """Check that the checkpoints that a run keeps fit onto the disk."""
    epochs = f"{foretold.num_epochs} epochs of {amount(foretold.epoch)}, " if foretold.num_epochs else ""
    detail = (
        f"{foretold.num_checkpoints} checkpoints of {amount(foretold.checkpoint)} at a time, "
        f"{epochs}and a final model of {amount(foretold.final_model)}"
    )
    check_room(note, foretold.disk, folder, detail)


def check_room(note: Note, needed: int, folder: Path, detail: str = "") -> None:
    """Check that so many bytes fit onto the disk of a folder.

    The folder need not be there yet; ``detail`` says what makes the bytes up.
    """
    free = shutil.disk_usage(existing(folder)).free
    note.found = f"{amount(needed)} of {amount(free)} free{f' ({detail})' if detail else ''}"
    if needed > free:
        raise UserError(
            note.found,
            where=str(folder),
            hint="smaller training.save_total_limit and keep_epochs_limit, or --output elsewhere",
        )


def _free_memory(profile: Profile) -> tuple[int, str]:
    """Return the free bytes of the device of a profile, and in words whose they are."""
    import torch

    free: dict[str, Callable[[], int]] = {"cpu": lambda: int(psutil.virtual_memory().available)}
    if torch.cuda.is_available():
        free["cuda"] = lambda: int(torch.cuda.mem_get_info()[0])
    if torch.backends.mps.is_available():
        free["mps"] = lambda: int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if profile.device in free:
        return free[profile.device](), f"free on the {profile.device} device"
    return (profile.memory_mb or 0) * 1024**2, f"of profile {profile.name}"
