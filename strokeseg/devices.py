"""The device that networks predict on, as the command line names it."""

from __future__ import annotations

import argparse

import torch

from strokeseg.errors import UserError


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
    available = torch.cuda.is_available()
    if options.device == "cuda" and not available:
        raise UserError("--device cuda: torch finds no GPU here; use --device cpu")
    return torch.device(options.device or ("cuda" if available else "cpu"))
