"""The bytes of a NIfTI file: somebody else's, and no more of them than its header promises.

A few kilobytes of gzip unpack to as many gigabytes as somebody likes, and a header promises
whatever it likes. So the header is read first, and what it *promises*, where its voxels start and
how many there are of how many bytes, decides how much is read of the rest.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from strokeseg.errors import CaseError

# A volume of 645 voxels a side; the finest of the human head have half of that.
MOST_VOXELS = 1 << 28
_LONGEST_SIDE = 2048
_HEADER_BYTES = 540
# Some programs write a little after the last voxel.
_SPARE_BYTES = 1 << 24
_BLOCK_BYTES = 1 << 20

# nibabel ships types for some of its functions; a strict checker refuses the others.
_nibabel: Any = nibabel


def read_nifti_content(path: Path) -> bytes:
    """Read a NIfTI file, decompressed whatever its name says, and to its checksum.

    Raises:
        CaseError: When it is missing, no file, empty, truncated, damaged, or too large.
    """
    try:
        # To open a pipe would take forever.
        if path.exists() and not path.is_file():
            raise CaseError(f"{path}: cannot be read (it is no file); check the path")
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if not start:
                raise CaseError(f"{path}: is empty (0 bytes); copy it again")
            if start != b"\x1f\x8b":
                return _read(path, file)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(path, unpacked)
    except FileNotFoundError:
        raise CaseError(f"{path}: no such file; check the path") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CaseError(f"{path}: is truncated or damaged ({reason}); copy it again") from None
    except OSError as error:
        raise CaseError(f"{path}: cannot be read ({error.strerror or error})") from None


def nifti_class(path: Path, content: bytes) -> Any:
    """Return nibabel's class of the image that a file holds.

    Raises:
        CaseError: When it holds none.
    """
    if content[344:348] == b"n+1\0":
        return _nibabel.Nifti1Image
    if content[4:8] == b"n+2\0":
        return _nibabel.Nifti2Image
    raise CaseError(f"{path}: is not a single-file NIfTI image; give a .nii or .nii.gz file")


def _read(path: Path, file: IO[bytes] | gzip.GzipFile) -> bytes:
    header = file.read(_HEADER_BYTES)
    most = _promised_bytes(path, header) + _SPARE_BYTES
    blocks, held = [header], len(header)
    while block := file.read(_BLOCK_BYTES):
        held += len(block)
        if held > most:
            raise CaseError(
                f"{path}: holds more than the {most - _SPARE_BYTES} bytes that its header "
                "promises; it is damaged, or packed to do harm"
            )
        blocks.append(block)
    return b"".join(blocks)


def _promised_bytes(path: Path, content: bytes) -> int:
    """Return how long the file should be; None for a header that cannot be read.

    Raises:
        CaseError: When that is no NIfTI file, or of a volume that is too large.
    """
    kind = nifti_class(path, content).header_class
    if len(content) < kind.sizeof_hdr:
        return 0
    try:
        header = kind(content[: kind.sizeof_hdr], check=False)
        shape, type_bytes = header.get_data_shape(), int(header.get_data_dtype().itemsize)
        start = max(0, int(header["vox_offset"]))
    except (HeaderDataError, KeyError, OverflowError, ValueError):
        return 0
    voxels = int(np.prod(shape, dtype=object))
    if voxels > MOST_VOXELS or max(shape, default=0) > _LONGEST_SIDE:
        raise CaseError(
            f"{path}: must have at most {MOST_VOXELS} voxels, {_LONGEST_SIDE} along a side, got "
            f"{' x '.join(map(str, shape))}; resample it, or give one volume of a series"
        )
    return min(start, _SPARE_BYTES) + max(0, voxels) * type_bytes
