"""How many trials the nodes of a cluster hold, and with how many workers: pure functions of their resources.

A trial that trains in its own process is one bundle of resources, which one node must hold whole. A trial with
workers is one bundle per worker; Ray reserves all of them or none (so two trials never wait for each other's
halves) and packs them onto as few nodes as it can (``PACK``), because the workers exchange gradients at every step
and do that fastest within a node; but it may spread them, so that a trial larger than a node runs at all. Nothing
else that a trial starts asks for a CPU or a GPU. All bundles of a study are alike, so no order of starts and ends
can split up what is free into parts too small for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dure.config.library import available
from dure.config.loading import load_profile
from dure.config.schema import Profile
from dure.errors import UserError
from dure.events import Notify
from dure.reporting.figures import memory

Resources = Mapping[str, float]
"""Amounts by Ray's names (``CPU``, ``GPU``)."""

_UNITS = 10_000
"""Ray counts resources in ten-thousandths; so does this, for in floats 0.3 does not hold three times 0.1."""


def worker_resources(profile: Profile) -> dict[str, float]:
    """Return the resources of one worker, by Ray's names."""
    resources = {"CPU": profile.cpus_per_worker}
    if profile.gpus_per_worker:
        resources["GPU"] = profile.gpus_per_worker
    return resources


def trial_bundle(profile: Profile) -> dict[str, float]:
    """Return what the process of a trial holds itself, by Ray's names.

    One that only waits for its workers takes no CPU from them: with a hundredth of one, two workers would never
    fit on two CPUs. A placement group must ask for something, so it asks for a little memory.
    """
    return worker_resources(profile) if profile.trains_in_process else {"memory": float(1024 * 1024)}


def workers_on(node: Resources, worker: Resources) -> int:
    """Return how many workers a node holds at once.

    A part of a GPU is a part of one GPU: two GPUs hold two workers of 0.6 and not three.
    """
    return min(_times(name, node.get(name, 0.0), amount) for name, amount in worker.items())


def room_for(profile: Profile, nodes: Sequence[Resources]) -> int:
    """Return how many workers all nodes together hold at once."""
    return sum(workers_on(node, worker_resources(profile)) for node in nodes)


def worker_counts(profile: Profile, batch_size: int) -> list[int]:
    """Return the numbers of workers that a trial may train with, the largest first.

    Raises:
        UserError: None of them shares the batch out evenly.
    """
    least = profile.min_workers or profile.num_workers
    counts = [count for count in range(profile.num_workers, least - 1, -1) if batch_size % count == 0]
    if not counts:
        many = str(least) if least == profile.num_workers else f"{least} to {profile.num_workers}"
        raise UserError(
            f"{batch_size} rows cannot be shared out evenly among {many} workers",
            where="training.batch_size",
            expected=f"a multiple of {profile.num_workers}",
        )
    return counts


def fitting_workers(profile: Profile, nodes: Sequence[Resources], batch_size: int) -> int | None:
    """Return with how many workers a trial can train on these nodes; None when there is no room now.

    Raises:
        UserError: No number of workers shares the batch out evenly.
    """
    room = room_for(profile, nodes)
    return next((count for count in worker_counts(profile, batch_size) if count <= room), None)


def require_room(profile: Profile, nodes: Sequence[Resources], batch_size: int) -> None:
    """Check that a trial can train on these nodes once they are free.

    Raises:
        UserError: It cannot, or no number of workers shares the batch out evenly.
    """
    fitting_trials(profile, nodes)
    if fitting_workers(profile, nodes, batch_size) is None:
        counts = " or ".join(str(count) for count in reversed(worker_counts(profile, batch_size)))
        room = room_for(profile, nodes)
        raise UserError(
            f"{batch_size} rows can be shared out evenly among {counts} workers, and the cluster holds {room}",
            where="training.batch_size",
            expected=f"a multiple of {room}, or a cluster with more",
        )


def fitting_trials(profile: Profile, nodes: Sequence[Resources]) -> int:
    """Return how many trials run side by side.

    Trials that only wait for their workers hold next to nothing themselves; this bound keeps those from starting
    whose workers would find no room.

    Raises:
        UserError: Not even one fits.
    """
    worker = worker_resources(profile)
    room = room_for(profile, nodes)
    if room < (profile.min_workers or profile.num_workers):
        raise UserError(
            _too_large(profile, worker, nodes, room),
            where=f"profile {profile.name}",
            hint="another --profile, or a cluster with more",
        )
    trials = max(1, room // profile.num_workers)
    return trials if profile.max_concurrent_trials is None else min(trials, profile.max_concurrent_trials)


def amounts(resources: Resources) -> str:
    """Return resources as people write them: ``4 CPU and 1 GPU``."""
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _times(name: str, have: float, need: float) -> int:
    if name == "GPU" and need < 1:
        return int(have) * (_UNITS // round(need * _UNITS))
    return round(have * _UNITS) // round(need * _UNITS)


def _too_large(profile: Profile, worker: dict[str, float], nodes: Sequence[Resources], room: int) -> str:
    def size(node: Resources) -> tuple[float, ...]:
        return tuple(node.get(name, 0.0) for name in reversed(worker))

    largest: Resources = max(nodes, key=size, default={})
    have = amounts({name: largest.get(name, 0.0) for name in worker})
    least = profile.min_workers or profile.num_workers
    if least == 1:
        needs = f"one trial needs {amounts(worker)} on one node"
    else:
        needs = f"one trial needs {least} workers of {amounts(worker)} each, and the cluster holds {room}"
    return f"{needs}; the largest of its {len(nodes)} node(s) has {have}"


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
                chosen = chosen.with_({"precision": "fp32"})
            return chosen, (
                f"profile {chosen.name}: the largest that fits {count} × {name} ({memory(memory_mb)}); "
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
    from dure.training.memory import has_device

    if not has_device(profile.device):
        raise UserError(
            f"PyTorch finds no {profile.device} device on this machine",
            where=f"profile {profile.name}",
            hint="leave --profile out to have the machine recognised; or a run on a cluster that has it, by its --address",
        )


def choose_profile(asked: str | Profile | None, notify: Notify, *, address: str | None = None) -> Profile:
    """Return the profile of a name or file, or one as it is, or recognise the machine and report the choice.

    Without an ``address`` this machine must have the device of the profile.

    Raises:
        UserError: There is no such profile, its device is not here, or the address is empty.
    """
    if address is not None and not address.strip():
        raise UserError(
            "it is empty",
            where="--address",
            expected="host:port or auto",
            hint="leave the option out for a local cluster",
        )
    if isinstance(asked, Profile):
        return asked
    if asked is not None:
        chosen = load_profile(asked)
        if address is None:
            require_device(chosen)
        return chosen
    profile, why = recognised_profile()
    notify(why)
    return profile
