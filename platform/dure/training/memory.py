"""Memory between runs that share a process: releasing it, and measuring that it is released."""

from __future__ import annotations

import ctypes
import gc
import sys

import psutil
import torch

_MB = 1024 * 1024


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


def allocated_mb(device: str) -> float:
    """Return the memory that live tensors hold on a device, in MiB.

    On CUDA and MPS the allocator says; on the CPU the storages of all tensors that Python can reach are
    added up, each once.
    """
    if device == "cuda":
        return float(torch.cuda.memory_allocated()) / _MB
    if device == "mps":
        return float(torch.mps.current_allocated_memory()) / _MB
    storages = {}
    for candidate in gc.get_objects():
        # Some lazy module objects import things when asked for their class; the type is always safe.
        if issubclass(type(candidate), torch.Tensor) and candidate.device.type == "cpu":
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return float(sum(storages.values())) / _MB


def resident_mb() -> float:
    """Return the resident memory of this process in MiB."""
    return float(psutil.Process().memory_info().rss) / _MB


def reset_peak(device: str) -> None:
    """Start a new peak measurement."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_mb(device: str) -> float:
    """Return the peak of device memory since :func:`reset_peak`; on the CPU, the process's resident memory."""
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated()) / _MB
    return resident_mb()
