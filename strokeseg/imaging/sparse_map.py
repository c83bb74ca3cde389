"""Probability maps that are kept small: most of a map is 0.

Probabilities are *fixed-point*: whole multiples of 1/65535 in 16 bits. Of a map only the
voxels that are not 0 are kept, and a bit for every voxel that says whether it is one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strokeseg.errors import UserError
from strokeseg.files import replacing_file

_ONE = 65535


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseMap:
    """A probability map, rounded to multiples of 1/65535.

    Attributes:
        shape: (X, Y, Z) of the map.
        kept: A bit a voxel in C order, packed: whether its value is not 0.
        values: (kept voxels,) uint16: their probabilities in units of 1/65535.
    """

    shape: tuple[int, ...]
    kept: NDArray[np.uint8]
    values: NDArray[np.uint16]

    def dense(self) -> NDArray[np.float32]:
        """Return the map: (X, Y, Z) float32, 0 to 1."""
        flags = np.unpackbits(self.kept, count=int(np.prod(self.shape))).astype(bool)
        voxels = np.zeros(flags.shape, dtype=np.float32)
        voxels[flags] = self.values.astype(np.float32) / np.float32(_ONE)
        return voxels.reshape(self.shape)

    def save(self, path: Path) -> None:
        """Write it as .npz, whole or not at all."""
        with replacing_file(path) as temporary:
            np.savez(temporary, shape=np.array(self.shape), kept=self.kept, values=self.values)

    @classmethod
    def load(cls, path: Path) -> SparseMap:
        """Read what `save` wrote.

        Raises:
            UserError: When the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                shape = tuple(int(side) for side in held["shape"])
                return cls(shape=shape, kept=held["kept"], values=held["values"])
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{path}: is no probability map ({error}); delete it") from None


def pack(probability: NDArray[np.float32]) -> SparseMap:
    """Round a map, (X, Y, Z) float32, 0 to 1, by at most half of 1/65535."""
    rounded = np.rint(probability * np.float32(_ONE)).astype(np.uint16)
    kept = rounded != 0
    return SparseMap(shape=rounded.shape, kept=np.packbits(kept), values=rounded[kept])
