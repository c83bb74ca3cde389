"""Maps of probability, kept compactly.

A map is 0 outside the brain and wherever its network is certain. A *sparse map* keeps a bit for
every voxel, set where the map is not 0, and a number of 16 bits for each of those: of a map whose
every brain voxel counts, an eighth in memory, and 1 to 2 MB on disk where it took 33 MB.
Rounding to 16 bits keeps the order of any two probabilities, or makes them equal; a threshold
decides on `dense` as it would on the rounded numbers, since that is what `dense` returns.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import UserError
from strokeseg.storage.files import replacing_file

_SCALE = 65535


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseMap:
    """A map of probability, of which only voxels that are not 0 are kept.

    Attributes:
        shape: (X, Y, Z).
        bits: (ceil(X * Y * Z / 8),) uint8: of the flattened map (Z fastest), which voxels are not
            0, eight to a byte, the first in the highest bit.
        values: (N,) uint16: those voxels' probabilities times 65535, in the same order.
    """

    shape: tuple[int, int, int]
    bits: NDArray[np.uint8]
    values: NDArray[np.uint16]

    def dense(self) -> NDArray[np.float32]:
        """Return the map, (X, Y, Z) float32, 0 to 1.

        It is within 1 / 131070 of what was packed, but for the last bit of a float32.
        """
        flat = np.zeros(prod(self.shape), dtype=np.float32)
        kept = np.unpackbits(self.bits, count=len(flat)).view(np.bool_)
        flat[kept] = self.values / np.float32(_SCALE)
        return flat.reshape(self.shape)

    def save(self, path: Path) -> None:
        """Write the map as compressed .npz, whole or not at all.

        Raises:
            UserError: When the file cannot be written.
        """
        with replacing_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, shape=self.shape, bits=self.bits, values=self.values)


def pack(probability: NDArray[np.float32]) -> SparseMap:
    """Return a map compactly.

    Args:
        probability: (X, Y, Z) float32, 0 to 1.

    Raises:
        ValueError: When a value is outside 0 to 1 or no number.
    """
    if not (probability.min(initial=0) >= 0 and probability.max(initial=0) <= 1):
        raise ValueError("a map of probability must hold numbers from 0 to 1")
    x, y, z = probability.shape
    # A float32 times 65535 is exact as a float64: what lies half way is not decided by chance.
    flat = probability.ravel()
    kept = flat >= np.float32(0.5 / _SCALE)
    values = np.rint(flat[kept].astype(np.float64) * _SCALE).astype(np.uint16)
    return SparseMap(shape=(x, y, z), bits=np.packbits(kept), values=values)


def read_sparse_map(path: Path) -> SparseMap:
    """Read what `SparseMap.save` wrote.

    Raises:
        UserError: When the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            x, y, z = (int(side) for side in held["shape"])
            packed = SparseMap(shape=(x, y, z), bits=held["bits"], values=held["values"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, type(error).__name__) from None
    voxels = prod(packed.shape)
    if (
        min(packed.shape) < 0
        or packed.bits.dtype != np.uint8
        or packed.values.dtype != np.uint16
        or len(packed.bits) != -(-voxels // 8)
        or len(packed.values) != np.count_nonzero(np.unpackbits(packed.bits, count=voxels))
    ):
        raise _unreadable(path, "its parts do not fit")
    return packed


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(f"{path}: is no readable map ({why}); remove it to make it again")
