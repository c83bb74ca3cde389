"""A trial's pictures for TensorBoard, of its best epoch only.

They are written by the trial's own process, since what a trial reports travels through the
driver and stays in its memory. A *picture file* is one event file with all of an epoch's
pictures; a newer one takes its place, so that a trial never keeps more than one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strokeseg.storage.files import unwritable
from strokeseg.tuning.event_file import EventFile


def replace_pictures(folder: Path, pictures: Mapping[str, NDArray[np.uint8]], epoch: int) -> None:
    """Write an epoch's pictures, then remove those of earlier epochs.

    Args:
        folder: Holds picture files only.
        pictures: (rows, columns, 3) uint8 by tag.
        epoch: The epoch that they show.

    Raises:
        UserError: When the file cannot be written.
    """
    earlier = list(folder.glob("events.*"))
    try:
        with EventFile(folder) as writer:
            for tag, picture in pictures.items():
                writer.add_image(tag, picture, epoch)
    except OSError as error:
        raise unwritable(folder, error) from error
    for path in earlier:
        path.unlink(missing_ok=True)
