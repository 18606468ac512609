"""Recognising the machine, for a profile when none is given."""

from __future__ import annotations

from dure.config.library import available
from dure.config.loading import load_profile
from dure.config.schema import Profile
from dure.errors import UserError


def recognised_profile() -> tuple[Profile, str]:
    """Return the profile that fits this machine, and one line on why.

    A CUDA card is matched by its name against ``match`` of the profiles; several cards, by their number.
    An unknown card takes the largest profile that fits into its memory.
    """
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        memory_mb = torch.cuda.get_device_properties(0).total_memory // (1024 * 1024)
        profiles = [load_profile(str(path)) for path in available("profile").values()]
        cards = [profile for profile in profiles if profile.device == "cuda"]
        count = torch.cuda.device_count()
        for profile in cards:
            if any(text.lower() in name.lower() for text in profile.match):
                return profile, f"profile {profile.name}: the card is a {name}"
        fitting = [p for p in cards if p.memory_mb is not None and p.memory_mb <= memory_mb]
        if fitting:
            chosen = max(fitting, key=lambda p: p.memory_mb or 0)
            if chosen.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
                chosen = chosen.model_copy(update={"precision": "fp32"})
            return chosen, (
                f"profile {chosen.name}: the largest that fits {count} × {name} ({memory_mb:,} MB); "
                "choose another with --profile"
            )
    if torch.backends.mps.is_available():
        return load_profile("m4"), "profile m4: the machine has an Apple GPU"
    return load_profile("cpu"), "profile cpu: no GPU was found"


def require_device(profile: Profile) -> None:
    """Check that this machine has the device of a profile.

    Raises:
        UserError: It has not.
    """
    import torch

    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here[profile.device]:
        raise UserError(
            f"PyTorch finds no {profile.device} device on this machine",
            where=f"profile {profile.name}",
            hint="leave --profile out to have the machine recognised, or give the --address of a cluster",
        )
