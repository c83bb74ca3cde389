"""How much memory a device has, and how much of it a training has held."""

from __future__ import annotations

import os
import resource
import sys

import torch


def memory_gb(device: torch.device) -> float:
    """Return the most held so far, 10^9 bytes: torch's on a GPU, the whole process's elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    # Linux counts in units of 1024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def peak_bytes(device: torch.device) -> int:
    """Return the most that this process has taken from others: on a GPU, its context included."""
    if device.type != "cuda":
        return round(memory_gb(device) * 1e9)
    free, total = torch.cuda.mem_get_info(device)
    # Whatever else lies on the GPU counts as well: too much rather than too little.
    beyond_torch = total - free - torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_reserved(device) + beyond_torch


def total_bytes(device: torch.device) -> int:
    """Return all the memory that a GPU, or this machine, has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
