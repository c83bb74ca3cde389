"""A trial's GPU, in the trial's own process: what is left on it, and whether it works at all.

A process keeps one GPU for all of its trials. After some faults (a kernel that reads where it must
not, a GPU that is gone) CUDA answers every further call of a process with the same error, and each
trial that came next would fail in seconds.
"""

from __future__ import annotations

import gc
import os
import socket
import sys

import torch

from strokeseg.errors import DeviceError

_LOST = 1


def take_gpu() -> None:
    """Free what the process's earlier trial has left on its GPU, and see that it computes.

    Raises:
        DeviceError: When it does not.
    """
    gc.collect()
    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device="cuda").add_(1).item()
        torch.cuda.reset_peak_memory_stats()
    except torch.OutOfMemoryError:
        # Full is not broken: the trial says so itself.
        return
    # The second where torch was built without CUDA.
    except (RuntimeError, AssertionError) as error:
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise DeviceError(
            f"node {socket.gethostname()}: torch cannot compute on the GPU that Ray gives it "
            f"({reason}); mend it, or take the node out of the cluster"
        ) from None


def leave_broken_gpu() -> None:
    """End this process at once if CUDA answers no more, so that Tune takes a new one."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"CUDA answers no more in this process: {error}", file=sys.stderr, flush=True)
        os._exit(_LOST)
