"""Memory between runs that share a process: releasing it, and measuring that it is released."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Self

import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from dure.config.schema import Profile

_MB = 1024 * 1024
_SECONDS_BETWEEN_LOOKS = 0.1
_CGROUP, _LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux says in which group of processes this one is, and what each group may take (version 2 of them)."""


def release() -> None:
    """Collect garbage and give cached device and heap memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if sys.platform == "linux":
        # glibc keeps freed heap pages; without this the resident size creeps up from run to run.
        ctypes.CDLL("libc.so.6").malloc_trim(0)


_WITHOUT_DATA = (FakeTensor, FunctionalTensor)


def allocated_mb(device: str) -> float:
    """Return the memory that live tensors hold on a device, in MiB.

    On CUDA and MPS the allocator says; on the CPU the storages of all tensors that Python can reach are
    added up, each once. Those of a traced model hold nothing.
    """
    if device == "cuda":
        return float(torch.cuda.memory_allocated()) / _MB
    if device == "mps":
        return float(torch.mps.current_allocated_memory()) / _MB
    storages = {}
    for candidate in gc.get_objects():
        # Some lazy module objects import things when asked for their class; the type is always safe.
        kind = type(candidate)
        if issubclass(kind, torch.Tensor) and not issubclass(kind, _WITHOUT_DATA) and candidate.is_cpu:
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return float(sum(storages.values())) / _MB


def resident_mb() -> float:
    """Return the resident memory of this process in MiB."""
    return float(psutil.Process().memory_info().rss) / _MB


@cache
def read_kernels() -> None:
    """Take a step of a tiny model on the CPU, once in a process.

    The first step reads the pages of PyTorch's kernels from the disk, which are in the resident memory from then on:
    17 MiB, whatever the model. Numbers of chance stay what they are.
    """
    with torch.random.fork_rng(devices=[]):
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        given = layer(torch.zeros(1, 2, 16)).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(given, torch.zeros(2, dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()


def free_on_host() -> int:
    """Return the bytes of the host's memory that this process may still take, also by the limit of its container."""
    free = int(psutil.virtual_memory().available)
    groups = _CGROUP.read_text().splitlines() if _CGROUP.is_file() else []
    folder = _LIMITS / next((each[3:].lstrip("/") for each in groups if each.startswith("0::")), "")
    for each in (folder, *folder.parents):
        limit, used = each / "memory.max", each / "memory.current"
        if each.is_relative_to(_LIMITS) and limit.is_file() and limit.read_text().strip() != "max":
            statistics = dict(line.split() for line in (each / "memory.stat").read_text().splitlines())
            # Files that were read or written count as used until something else needs their place.
            taken = int(used.read_text()) - int(statistics["inactive_file"])
            free = min(free, int(limit.read_text()) - taken)
    return max(0, free)


def has_device(device: str) -> bool:
    """Return whether this machine has a device of a kind."""
    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[device]


def free_memory(profile: Profile) -> tuple[int, str]:
    """Return the free bytes of its device that a worker of a profile may take, and in words whose they are."""
    if profile.device == "cpu":
        workers = profile.num_workers
        shared = f" for each of {workers} workers" if workers > 1 else ""
        return free_on_host() // workers, f"free on the cpu device{shared}"
    free: dict[str, Callable[[], int]] = {}
    if torch.cuda.is_available():
        free["cuda"] = lambda: int(torch.cuda.mem_get_info()[0])
    if torch.backends.mps.is_available():
        free["mps"] = lambda: int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if profile.device in free:
        return free[profile.device](), f"free on the {profile.device} device"
    return (profile.memory_mb or 0) * 1024**2, f"of profile {profile.name}"


class Usage:
    """Peak memory and mean CPU use of this process while the body of a ``with`` runs.

    On CUDA the allocator knows the peak; elsewhere the resident memory is looked at every tenth of a second.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._over = threading.Event()
        self._highest = 0.0
        self._watcher = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        """Begin to measure."""
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._began, self._cpu_began = time.monotonic(), _cpu_seconds()
        self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Measure no more."""
        self._over.set()
        self._watcher.join()

    @property
    def peak_mb(self) -> float:
        """Most memory so far in MiB: of tensors on CUDA, of the whole process elsewhere."""
        if self._device == "cuda":
            return float(torch.cuda.max_memory_allocated()) / _MB
        self._highest = max(self._highest, resident_mb())
        return self._highest

    @property
    def cpu_percent(self) -> float:
        """Mean CPU use so far; 100 is one core."""
        return 100 * (_cpu_seconds() - self._cpu_began) / max(1e-9, time.monotonic() - self._began)

    def _watch(self) -> None:
        while not self._over.wait(_SECONDS_BETWEEN_LOOKS):
            self._highest = max(self._highest, resident_mb())


def _cpu_seconds() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
