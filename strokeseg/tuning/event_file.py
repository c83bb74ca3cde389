"""An event file of TensorBoard, written without PyTorch."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class EventFile:
    """A new event file in a folder, open until it is closed.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, summary: Summary, step: int = 0) -> None:
        """Write a summary."""
        self._writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write a number."""
        self.add(Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)

    def add_image(self, tag: str, image: NDArray[np.uint8], step: int) -> None:
        """Write an image, (rows, columns, 3)."""
        png = io.BytesIO()
        Image.fromarray(image).save(png, format="PNG")
        rows, columns, channels = image.shape
        encoded = Summary.Image(
            height=rows,
            width=columns,
            colorspace=channels,
            encoded_image_string=png.getvalue(),
        )
        self.add(Summary(value=[Summary.Value(tag=tag, image=encoded)]), step)

    def flush(self) -> None:
        """Wait until everything is in the file.

        Raises:
            OSError: When it could not be written.
        """
        self._writer.flush()

    def close(self) -> None:
        """Flush and close.

        Raises:
            OSError: When something could not be written.
        """
        # Closing alone does not say so.
        self._writer.flush()
        self._writer.close()
