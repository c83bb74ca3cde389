"""The device that networks predict on, as the command line names it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_device_option(options: argparse.ArgumentParser) -> None:
    """Add the option that says where networks predict."""
    options.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="where networks predict (default: cuda where there is one, else cpu)",
    )


def device_of(options: argparse.Namespace) -> torch.device:
    """Return the device that the options name.

    Raises:
        UserError: When a GPU is asked for and torch finds none.
    """
    # `predict` has this option too, and must be able to do without torch.
    from strokeseg.ensemble.torch_predictor import find_device  # noqa: PLC0415

    return find_device(options.device)
