"""Maps of probability, kept compactly.

Most of a map is 0: outside the brain for certain, and nearly everywhere else. A *sparse map* keeps
the voxels that are not, as numbers of 16 bits, a few hundred kB where the map takes tens of MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import UserError
from strokeseg.files import replacing_file

_SCALE = np.float32(65535)


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseMap:
    """A map of probability whose voxels are 0 but for some.

    Attributes:
        shape: (X, Y, Z).
        places: (N,) int32, where the others lie in the flattened map, ascending.
        values: (N,) uint16, their probability times 65535.
    """

    shape: tuple[int, int, int]
    places: NDArray[np.int32]
    values: NDArray[np.uint16]

    def dense(self) -> NDArray[np.float32]:
        """Return the map, (X, Y, Z) float32, 0 to 1; within 1 / 131070 of what was packed."""
        flat = np.zeros(int(np.prod(self.shape)), dtype=np.float32)
        flat[self.places] = self.values / _SCALE
        return flat.reshape(self.shape)

    def save(self, path: Path) -> None:
        """Write the map as compressed .npz, whole or not at all.

        Raises:
            UserError: When the file cannot be written.
        """
        with replacing_file(path) as temporary:
            np.savez_compressed(temporary, shape=self.shape, places=self.places, values=self.values)


def pack(probability: NDArray[np.float32]) -> SparseMap:
    """Return a map compactly.

    Args:
        probability: (X, Y, Z) float32, 0 to 1.

    Raises:
        ValueError: When a value is outside 0 to 1 or no number.
    """
    if not (probability.min(initial=0) >= 0 and probability.max(initial=0) <= 1):
        raise ValueError("a map of probability must hold numbers from 0 to 1")
    numbers = np.round(probability.ravel() * _SCALE).astype(np.uint16)
    places = np.flatnonzero(numbers).astype(np.int32)
    x, y, z = probability.shape
    return SparseMap(shape=(x, y, z), places=places, values=numbers[places])


def read_sparse_map(path: Path) -> SparseMap:
    """Read what `SparseMap.save` wrote.

    Raises:
        UserError: When the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            x, y, z = (int(side) for side in held["shape"])
            return SparseMap(shape=(x, y, z), places=held["places"], values=held["values"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"{path}: is no readable map ({type(error).__name__}); remove it to make it anew"
        ) from None
