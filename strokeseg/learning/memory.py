"""How much memory a training has held."""

from __future__ import annotations

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
